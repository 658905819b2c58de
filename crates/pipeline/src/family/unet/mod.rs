//! What the families with a UNet share: Stable Diffusion 1, 2, XL and its refiner.

mod control;
mod denoiser;

use std::fmt::Debug;
use std::marker::PhantomData;

use sd_models::vae::{self, Scaling};
use sd_models::{clip, unet};
use sd_weights::{ModelSource, Naming, Weights};

use super::contract::{Defaults, Family, LatentLayout, Task, TextEncoders};
use super::layout::{TRANSFORMER, UNET, must_have};
use super::text::{ChunkedClips, Clips, clip_configs};
use super::titles::{has_default_controlnets, network_title};
use super::{ControlModel, ControlWeights, Denoiser};
use crate::components::{self, ModelIndex};
use crate::image_size::ImageSize;
use crate::scheduler::{Repairs, SchedulerConfig};
use crate::tokenizer::Tokenizers;
use crate::{Error, Result};
use denoiser::UNetDenoiser;

pub(super) use control::CONTROLNETS;

/// What tells a family with a UNet from the others.
pub(super) trait UNetFamily: Debug + Send + Sync + 'static {
    /// As [`Family::title`].
    const TITLE: &'static str;
    /// As [`Family::pipeline_type`].
    const PIPELINE_TYPE: &'static str;
    /// As [`Family::defaults`].
    const DEFAULTS: Defaults;
    /// The number of CLIPs.
    const CLIPS: usize;
    /// Which hidden state of a CLIP is the context.
    const HIDDEN: clip::Hidden;
    /// Length of `add_time_ids`. None for a UNet without size conditioning and pooled prompts.
    const TIME_IDS: Option<usize>;
    /// As [`Family::knows_zeros_for_empty_prompt`].
    const KNOWS_ZEROS_FOR_EMPTY_PROMPT: bool;
    /// Whether the pipelines normalise latents with `latents_mean` and `latents_std`, where a VAE has them.
    const NORMALISES_LATENTS: bool;

    /// As [`Family::trained_size`].
    fn trained_size(network: &unet::Config, _is_latent_consistency: bool) -> Option<(usize, usize)> {
        network.trained_size()
    }

    /// As [`Family::add_time_ids`].
    fn add_time_ids(size: ImageSize, prompts: usize) -> Vec<Vec<f32>>;

    /// As [`Family::scheduler_repairs`].
    fn scheduler_repairs(_task: Task, _is_latent_consistency: bool) -> Repairs {
        Repairs::default()
    }
}

/// A model of the family `F`.
#[derive(Debug)]
struct UNetModel<F> {
    network: unet::Config,
    text: ChunkedClips,
    family: PhantomData<F>,
}

/// Recognises a model of the family `F` by its size conditioning and its number of CLIPs.
///
/// # Errors
/// A file is wrong.
pub(super) fn recognise<F: UNetFamily>(
    source: &dyn ModelSource,
    index: &ModelIndex,
    tokenizers: &Tokenizers,
) -> Result<Option<Box<dyn Family>>> {
    let Some(network) = open(source, index)? else {
        return Ok(None);
    };
    let clips = clip_configs(source, index)?;
    let time_ids = clips
        .last()
        .and_then(|clip| network.time_id_count(clip.projection_dim));
    let is_conditioned = network.addition_embed_type.is_some();
    if clips.len() != F::CLIPS || time_ids != F::TIME_IDS || is_conditioned != F::TIME_IDS.is_some() {
        return Ok(None);
    }
    Ok(Some(Box::new(UNetModel::<F> {
        text: ChunkedClips {
            clips: Clips::open(source, index, tokenizers)?,
            hidden: F::HIDDEN,
            pooled_features: F::TIME_IDS.and_then(|time_ids| network.pooled_features(time_ids)),
        },
        network,
        family: PhantomData,
    })))
}

/// Reads the configuration of a model's UNet. None if the model has no UNet, or one of another class.
///
/// # Errors
/// A tensor is missing, or the configuration is not supported.
fn open(source: &dyn ModelSource, index: &ModelIndex) -> Result<Option<unet::Config>> {
    const TENSORS: [&str; 3] = [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.conv1.weight",
    ];
    let has = |component: &str| source.has_config(component);
    if has(TRANSFORMER)
        || !has(UNET)
        || !components::is_of_class(source, Some(index), UNET, components::UNETS)?
    {
        return Ok(None);
    }
    must_have(source, UNET, &TENSORS)?;
    let config: unet::Config = source.config(UNET)?.json()?;
    config.validate()?;
    Ok(Some(config))
}

impl<F: UNetFamily> Family for UNetModel<F> {
    fn title(&self) -> &'static str {
        F::TITLE
    }

    fn network_title(&self) -> &'static str {
        network_title(&self.network)
    }

    fn pipeline_type(&self) -> &'static str {
        F::PIPELINE_TYPE
    }

    fn defaults(&self) -> Defaults {
        F::DEFAULTS
    }

    fn trained_size(&self, is_latent_consistency: bool) -> Option<(usize, usize)> {
        F::trained_size(&self.network, is_latent_consistency)
    }

    fn text_encoders(&self) -> &dyn TextEncoders {
        &self.text
    }

    fn text_encoders_mut(&mut self) -> &mut dyn TextEncoders {
        &mut self.text
    }

    fn knows_zeros_for_empty_prompt(&self) -> bool {
        F::KNOWS_ZEROS_FOR_EMPTY_PROMPT
    }

    fn component(&self) -> &'static str {
        UNET
    }

    fn namings(&self) -> &'static [Naming] {
        &[Naming::UNET]
    }

    fn latents(&self) -> LatentLayout {
        LatentLayout {
            in_channels: self.network.in_channels,
            out_channels: self.network.out_channels,
            patch_size: 1,
            longest_side: None,
        }
    }

    fn takes_mask(&self, latent_channels: usize) -> bool {
        self.network.in_channels == 2 * latent_channels + 1
    }

    fn takes_guidance(&self) -> bool {
        self.network.time_cond_proj_dim.is_some()
    }

    fn add_time_ids(&self, size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        F::add_time_ids(size, prompts)
    }

    fn check(&self, _scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        let clips = &self.text.clips;
        clips.check(refuse)?;
        let (features, context) = (clips.features(), self.network.context_features());
        if features != context {
            return Err(refuse(format!(
                "CLIP gives {features} features and the {UNET} takes {context}"
            )));
        }
        let pooled = clips.parts.last().map_or(0, |part| part.config.projection_dim);
        match self.text.pooled_features {
            Some(wanted) if pooled != wanted => Err(refuse(format!(
                "CLIP's summaries have {pooled} features and the {UNET} takes {wanted}"
            ))),
            _ => Ok(()),
        }
    }

    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>> {
        let controls = control::networks(controls)?;
        Ok(Box::new(UNetDenoiser::new(weights, &self.network, controls)?))
    }

    fn control_mismatch(&self, control: &dyn ControlModel, vae: &vae::Config) -> Option<String> {
        control::mismatch(&self.network, control, vae)
    }

    fn has_default_controlnets(&self) -> bool {
        has_default_controlnets(&self.network)
    }

    fn scheduler_repairs(&self, task: Task, is_latent_consistency: bool) -> Repairs {
        F::scheduler_repairs(task, is_latent_consistency)
    }

    /// Inpainting pipelines ignore `latents_mean` and `latents_std` here.
    fn encoding(&self, task: Task) -> Scaling {
        match task {
            Task::TextToImage | Task::ImageToImage if F::NORMALISES_LATENTS => Scaling::Normalised,
            _ => Scaling::Factor,
        }
    }

    /// Of the inpainting pipelines, only those with ControlNets ignore them here.
    fn decoding(&self, task: Task, is_controlled: bool) -> Scaling {
        match task {
            Task::Inpainting if is_controlled => Scaling::Factor,
            _ if F::NORMALISES_LATENTS => Scaling::Normalised,
            _ => Scaling::Factor,
        }
    }
}
