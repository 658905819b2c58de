//! Stable Diffusion 3 and 3.5: two CLIPs and T5 condition a multimodal diffusion transformer (MMDiT).

mod control;
mod denoiser;
mod text;

use sd_models::vae::Scaling;
use sd_models::{mmdit, vae};
use sd_weights::{ModelSource, Naming, Weights};

use super::contract::{Defaults, Family, LatentLayout, Task, TextEncoders};
use super::layout::{TRANSFORMER, must_have};
use super::text::clip_configs;
use super::titles::STABLE_DIFFUSION_3;
use super::{ControlModel, ControlWeights, Denoiser};
use crate::components::{self, ModelIndex};
use crate::scheduler::SchedulerConfig;
use crate::tokenizer::Tokenizers;
use crate::{Error, Result};
use denoiser::Sd3Denoiser;
use text::Sd3TextEncoders;

pub(super) use control::CONTROLNETS;

/// A model of Stable Diffusion 3 or 3.5.
#[derive(Debug)]
struct StableDiffusion3 {
    network: mmdit::Config,
    text: Sd3TextEncoders,
}

/// Recognises an MMDiT transformer and two CLIPs.
///
/// # Errors
/// A file is wrong, or the transformer lacks a tensor.
pub(super) fn recognise(
    source: &dyn ModelSource,
    index: &ModelIndex,
    tokenizers: &Tokenizers,
) -> Result<Option<Box<dyn Family>>> {
    const TENSORS: [&str; 3] = [
        "pos_embed.proj.weight",
        "context_embedder.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
    ];
    if !source.has_config("transformer")
        || !components::is_of_class(source, Some(index), TRANSFORMER, components::TRANSFORMERS)?
    {
        return Ok(None);
    }
    must_have(source, TRANSFORMER, &TENSORS)?;
    let network: mmdit::Config = source.config("transformer")?.json()?;
    network.validate()?;
    if clip_configs(source, index)?.len() != 2 {
        return Ok(None);
    }
    Ok(Some(Box::new(StableDiffusion3 {
        text: Sd3TextEncoders::open(source, index, tokenizers, &network)?,
        network,
    })))
}

impl Family for StableDiffusion3 {
    fn title(&self) -> &'static str {
        STABLE_DIFFUSION_3
    }

    fn pipeline_type(&self) -> &'static str {
        "stable-diffusion-3"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            steps: 28,
            guidance_scale: 4.5,
            side: 1024,
        }
    }

    fn trained_size(&self, _is_latent_consistency: bool) -> Option<(usize, usize)> {
        Some((self.network.sample_size, self.network.sample_size))
    }

    fn text_encoders(&self) -> &dyn TextEncoders {
        &self.text
    }

    fn text_encoders_mut(&mut self) -> &mut dyn TextEncoders {
        &mut self.text
    }

    fn component(&self) -> &'static str {
        TRANSFORMER
    }

    fn namings(&self) -> &'static [Naming] {
        &[Naming::MMDIT]
    }

    fn latents(&self) -> LatentLayout {
        LatentLayout {
            in_channels: self.network.in_channels,
            out_channels: self.network.predicted_channels(),
            patch_size: self.network.patch_size,
            longest_side: Some(self.network.pos_embed_max_size * self.network.patch_size),
        }
    }

    fn check(&self, scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        self.text.check(&self.network, refuse)?;
        if !scheduler.is_flow() {
            let class = scheduler.class_name.as_deref().unwrap_or("no class");
            return Err(refuse(format!(
                "its {TRANSFORMER} follows rectified flow, and its scheduler is {class}"
            )));
        }
        Ok(())
    }

    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>> {
        let controls = control::networks(controls)?;
        Ok(Box::new(Sd3Denoiser::new(weights, &self.network, controls)?))
    }

    fn control_mismatch(&self, control: &dyn ControlModel, _vae: &vae::Config) -> Option<String> {
        let Some(config) = control::config(control) else {
            return Some(control.made_for(STABLE_DIFFUSION_3));
        };
        let fills_masks = || {
            let channels = config.extra_conditioning_channels;
            (channels > 0).then(|| {
                format!(
                    "it is an inpainting ControlNet (its extra_conditioning_channels are {channels}), which is not supported"
                )
            })
        };
        config.mismatch(&self.network).or_else(fills_masks)
    }

    fn encoding(&self, _task: Task) -> Scaling {
        Scaling::Shifted
    }

    fn memory_optimizations(&self) -> &'static [&'static str] {
        &["modulations computed once, their weights dropped"]
    }
}
