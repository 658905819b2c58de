//! Stable Diffusion 1 and 2: one CLIP conditions a UNet.

use sd_models::vae::Scaling;
use sd_models::{clip, unet as network, vae};
use sd_weights::{ModelSource, Weights};

use super::contract::{Defaults, Family, LatentLayout, Task, TextEncoders};
use super::layout::UNET;
use super::text::{ChunkedClips, Clips, clip_configs};
use super::titles::{has_default_controlnets, network_title};
use super::{ControlConfig, ControlWeights, Denoiser, unet};
use crate::components::ModelIndex;
use crate::scheduler::{Repairs, SchedulerConfig};
use crate::{Error, Result};

/// A model of Stable Diffusion 1 or 2.
#[derive(Debug)]
struct StableDiffusion {
    network: network::Config,
    text: ChunkedClips,
}

/// Recognises a UNet without size conditioning and one CLIP.
///
/// # Errors
/// A file is wrong.
pub(super) fn recognise(source: &dyn ModelSource, index: &ModelIndex) -> Result<Option<Box<dyn Family>>> {
    let Some(network) = unet::open(source, index)? else {
        return Ok(None);
    };
    let clips = clip_configs(source, index)?;
    let is_plain = network.addition_embed_type.is_none() && unet::time_ids(&network, &clips).is_none();
    if clips.len() != 1 || !is_plain {
        return Ok(None);
    }
    Ok(Some(Box::new(StableDiffusion {
        text: ChunkedClips {
            clips: Clips::open(source, index)?,
            hidden: clip::Hidden::Normed,
            pooled_features: None,
        },
        network,
    })))
}

impl Family for StableDiffusion {
    fn title(&self) -> &'static str {
        "Stable Diffusion"
    }

    fn network_title(&self) -> &'static str {
        network_title(&self.network)
    }

    fn pipeline_type(&self) -> &'static str {
        "stable-diffusion"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            steps: 30,
            guidance_scale: 7.5,
            side: 512,
        }
    }

    /// diffusers' pipelines correct it too: configurations of early releases hold half of the size or less.
    /// The pipelines for latent consistency models do not.
    fn trained_size(&self, is_latent_consistency: bool) -> Option<(usize, usize)> {
        const LEAST: usize = 64;
        match self.network.trained_size() {
            Some((rows, columns))
                if !is_latent_consistency
                    && rows == columns
                    && rows < LEAST
                    && self.network.was_saved_before(0, 9) =>
            {
                Some((LEAST, LEAST))
            }
            size => size,
        }
    }

    fn text_encoders(&self) -> &dyn TextEncoders {
        &self.text
    }

    fn component(&self) -> &'static str {
        UNET
    }

    fn latents(&self) -> LatentLayout {
        unet::latents(&self.network)
    }

    fn takes_mask(&self, latent_channels: usize) -> bool {
        unet::takes_mask(&self.network, latent_channels)
    }

    fn takes_guidance(&self) -> bool {
        self.network.time_cond_proj_dim.is_some()
    }

    fn check(&self, _scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        self.text.clips.check(refuse)?;
        unet::check_text(&self.network, self.text.clips.features(), (0, None), refuse)
    }

    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>> {
        unet::denoiser(&self.network, weights, controls)
    }

    fn control_mismatch(&self, control: &ControlConfig, vae: &vae::Config) -> Option<String> {
        unet::control_mismatch(&self.network, control, vae)
    }

    fn has_default_controlnets(&self) -> bool {
        has_default_controlnets(&self.network)
    }

    /// `StableDiffusionPipeline`, `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline`
    /// correct the scheduler in their `__init__`; no other class does.
    fn scheduler_repairs(&self, task: Task, is_latent_consistency: bool) -> Repairs {
        match task {
            Task::TextToImage if is_latent_consistency => Repairs::default(),
            Task::TextToImage | Task::ImageToImage => Repairs {
                steps_offset: true,
                clip_sample: true,
                skip_prk_steps: false,
            },
            Task::Inpainting => Repairs {
                steps_offset: true,
                clip_sample: false,
                skip_prk_steps: true,
            },
        }
    }

    fn encoding(&self, _task: Task) -> Scaling {
        Scaling::Factor
    }
}
