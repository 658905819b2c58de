//! What the families with a UNet share: Stable Diffusion 1, 2, XL and its refiner.

mod denoiser;

use sd_models::{clip, controlnet, unet, vae};
use sd_weights::{ModelSource, Weights};

use super::control::{ControlConfig, ControlWeights};
use super::layout::{TRANSFORMER, UNET, must_have};
use super::titles::network_title;
use super::{Denoiser, LatentLayout};
use crate::components::{self, ModelIndex};
use crate::{Error, Result};
use denoiser::UNetDenoiser;

/// Channels of an image.
const COLOURS: usize = 3;

/// Reads the configuration of a model's UNet. None if the model has no UNet, or one of another class.
///
/// # Errors
/// A tensor is missing, or the configuration is not supported.
pub(super) fn open(source: &dyn ModelSource, index: &ModelIndex) -> Result<Option<unet::Config>> {
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
    let config: unet::Config = source.config("unet")?.json()?;
    config.validate()?;
    Ok(Some(config))
}

/// The length of `add_time_ids` for the UNet of `config`, beside the pooled vectors of the last of `clips`.
pub(super) fn time_ids(config: &unet::Config, clips: &[clip::Config]) -> Option<usize> {
    config.time_id_count(clips.last()?.projection_dim)
}

/// Checks that CLIPs with these features and pooled features fit the UNet of `config`.
///
/// # Errors
/// They do not.
pub(super) fn check_text(
    config: &unet::Config,
    features: usize,
    pooled: (usize, Option<usize>),
    refuse: &dyn Fn(String) -> Error,
) -> Result<()> {
    let context = config.context_features();
    if features != context {
        return Err(refuse(format!(
            "CLIP gives {features} features and the {UNET} takes {context}"
        )));
    }
    match pooled {
        (pooled, Some(wanted)) if pooled != wanted => Err(refuse(format!(
            "CLIP's summaries have {pooled} features and the {UNET} takes {wanted}"
        ))),
        _ => Ok(()),
    }
}

/// The latent layout of the UNet of `config`.
pub(super) fn latents(config: &unet::Config) -> LatentLayout {
    LatentLayout {
        in_channels: config.in_channels,
        out_channels: config.out_channels,
        patch_size: 1,
        longest_side: None,
    }
}

/// Whether the UNet of `config` takes an inpainting mask and masked latents beside the latents.
pub(super) fn takes_mask(config: &unet::Config, latent_channels: usize) -> bool {
    config.in_channels == 2 * latent_channels + 1
}

/// The UNet of `config` with its ControlNets. No weight is read yet.
///
/// # Errors
/// A configuration is not supported, or a file lacks a tensor of it.
pub(super) fn denoiser(
    config: &unet::Config,
    weights: Weights,
    controls: Vec<ControlWeights<'_>>,
) -> Result<Box<dyn Denoiser>> {
    let mut network = UNetDenoiser::new(weights, config)?;
    for control in controls {
        match control.config {
            ControlConfig::UNet(config) => network.add_control(control.weights, config, control.scale)?,
            ControlConfig::Transformer(_) => {
                unreachable!("a ControlNet of another kind was refused before. This is a bug.")
            }
        }
    }
    Ok(Box::new(network))
}

/// Why the ControlNet of `control` cannot be used with the UNet of `config` and the autoencoder of `vae`, if
/// it cannot.
pub(super) fn control_mismatch(
    config: &unet::Config,
    control: &ControlConfig,
    vae: &vae::Config,
) -> Option<String> {
    match control {
        ControlConfig::UNet(own) => unet_mismatch(config, own, control, vae),
        ControlConfig::Transformer(_) => Some(control.made_for(network_title(config))),
    }
}

fn unet_mismatch(
    wanted: &unet::Config,
    config: &controlnet::Config,
    control: &ControlConfig,
    vae: &vae::Config,
) -> Option<String> {
    let own = &config.network;
    // Configurations that are not supported at all are refused when the network is created.
    let held = own.skip_channels().ok().zip(wanted.skip_channels().ok());
    let same = own.context_features() == wanted.context_features()
        && own.block_out_channels == wanted.block_out_channels
        && held.is_none_or(|(own, wanted)| own == wanted);
    let numbers = [
        (
            "conditioning_channels",
            config.conditioning_channels,
            COLOURS,
            "images",
        ),
        (
            "in_channels",
            own.in_channels,
            vae.latent_channels,
            "the model's latents",
        ),
        (
            "levels of conditioning_embedding_out_channels",
            config.conditioning_embedding_out_channels.len(),
            vae.block_out_channels.len(),
            "the model's autoencoder",
        ),
    ];
    let mut numbers = numbers.into_iter();
    match numbers.find(|(_, own, wanted, _)| own != wanted) {
        _ if !same => Some(control.made_for(network_title(wanted))),
        Some((name, own, wanted, whose)) => Some(format!("its {name} are {own}, and {whose} have {wanted}")),
        None => None,
    }
}
