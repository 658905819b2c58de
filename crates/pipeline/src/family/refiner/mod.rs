//! The refiner of Stable Diffusion XL: the larger CLIP and an aesthetic score condition a UNet.

use sd_models::vae::Scaling;
use sd_models::{clip, unet as network, vae};
use sd_weights::{ModelSource, Weights};

use super::contract::{Defaults, Family, LatentLayout, Task, TextEncoders};
use super::layout::UNET;
use super::text::{ChunkedClips, Clips, clip_configs};
use super::titles::network_title;
use super::{ControlConfig, ControlWeights, Denoiser, unet};
use crate::components::ModelIndex;
use crate::request::ImageSize;
use crate::scheduler::SchedulerConfig;
use crate::{Error, Result};

/// Length of `add_time_ids`: original size, crop and aesthetic score.
const TIME_IDS: usize = 5;
/// The aesthetic scores for the prompt and the negative prompt, as in the reference implementation.
const AESTHETIC_SCORE: f32 = 6.0;
const NEGATIVE_AESTHETIC_SCORE: f32 = 2.5;

/// A refiner of Stable Diffusion XL.
#[derive(Debug)]
struct Refiner {
    network: network::Config,
    text: ChunkedClips,
}

/// Recognises a UNet with an aesthetic score and one CLIP.
///
/// # Errors
/// A file is wrong.
pub(super) fn recognise(source: &dyn ModelSource, index: &ModelIndex) -> Result<Option<Box<dyn Family>>> {
    let Some(network) = unet::open(source, index)? else {
        return Ok(None);
    };
    let clips = clip_configs(source, index)?;
    if clips.len() != 1 || unet::time_ids(&network, &clips) != Some(TIME_IDS) {
        return Ok(None);
    }
    Ok(Some(Box::new(Refiner {
        text: ChunkedClips {
            clips: Clips::open(source, index)?,
            hidden: clip::Hidden::Penultimate,
            pooled_features: network.pooled_features(TIME_IDS),
        },
        network,
    })))
}

impl Family for Refiner {
    fn title(&self) -> &'static str {
        "refiner of Stable Diffusion XL"
    }

    fn network_title(&self) -> &'static str {
        network_title(&self.network)
    }

    fn pipeline_type(&self) -> &'static str {
        "stable-diffusion-xl-refiner"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            steps: 30,
            guidance_scale: 5.0,
            side: 1024,
        }
    }

    fn trained_size(&self, _is_latent_consistency: bool) -> Option<(usize, usize)> {
        self.network.trained_size()
    }

    fn text_encoders(&self) -> &dyn TextEncoders {
        &self.text
    }

    fn knows_zeros_for_empty_prompt(&self) -> bool {
        true
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

    fn add_time_ids(&self, size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        let sides = [size.height() as f32, size.width() as f32];
        let crop = [0.0, 0.0];
        let of_prompt = |prompt: usize| {
            let is_negative = prompts > 1 && prompt == 0;
            let score = if is_negative {
                NEGATIVE_AESTHETIC_SCORE
            } else {
                AESTHETIC_SCORE
            };
            [&sides[..], &crop, &[score]].concat()
        };
        (0..prompts).map(of_prompt).collect()
    }

    fn check(&self, _scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        self.text.clips.check(refuse)?;
        let last = self.text.clips.parts.last();
        let pooled = last.map_or(0, |part| part.config.projection_dim);
        let pooled = (pooled, self.text.pooled_features);
        unet::check_text(&self.network, self.text.clips.features(), pooled, refuse)
    }

    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>> {
        unet::denoiser(&self.network, weights, controls)
    }

    fn control_mismatch(&self, control: &ControlConfig, vae: &vae::Config) -> Option<String> {
        unet::control_mismatch(&self.network, control, vae)
    }

    /// Inpainting pipelines ignore `latents_mean` and `latents_std` here.
    fn encoding(&self, task: Task) -> Scaling {
        match task {
            Task::Inpainting => Scaling::Factor,
            Task::TextToImage | Task::ImageToImage => Scaling::Normalised,
        }
    }

    fn decoding(&self, task: Task, is_controlled: bool) -> Scaling {
        match task {
            Task::Inpainting if is_controlled => self.encoding(task),
            _ => Scaling::Normalised,
        }
    }
}
