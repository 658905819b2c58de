//! The ControlNets for UNets.

use std::any::Any;

use sd_models::controlnet::{Config, ControlNet};
use sd_models::{unet, vae};
use sd_weights::Weights;

use crate::Result;
use crate::components;
use crate::family::control::{ControlInput, ControlModel, ControlRecognition, ControlWeights};
use crate::family::titles::network_title;
use crate::request::ControlKind;

/// Channels of an image.
const COLOURS: usize = 3;

/// How they are recognised.
pub(in crate::family) const CONTROLNETS: ControlRecognition = ControlRecognition {
    network: "a UNet",
    tensors: [
        "controlnet_cond_embedding.conv_in.weight",
        "controlnet_mid_block.weight",
    ],
    classes: components::CONTROLNETS_OF_UNETS,
    open: |source, component| Ok(Box::new(UNetControl(source.config(component)?.json()?))),
};

/// A ControlNet for a UNet.
#[derive(Debug)]
struct UNetControl(Config);

impl ControlModel for UNetControl {
    fn title(&self) -> &'static str {
        network_title(&self.0.network)
    }

    fn check(&self, weights: Weights) -> Result<()> {
        ControlNet::new(weights, &self.0)?;
        Ok(())
    }

    /// Pixels from 0 to 1.
    fn input(&self, _kind: ControlKind) -> ControlInput {
        ControlInput {
            pixels: Some((0.5, 0.5)),
            latents: None,
        }
    }
}

/// The configuration of `control`, if it is for a UNet.
fn config(control: &dyn ControlModel) -> Option<&Config> {
    let control: &dyn Any = control;
    Some(&control.downcast_ref::<UNetControl>()?.0)
}

/// The networks of `controls`, with their scales. No weight is read yet.
///
/// # Errors
/// A configuration is not supported, or a file lacks a tensor of it.
pub(super) fn networks(controls: Vec<ControlWeights<'_>>) -> Result<Vec<(ControlNet, f64)>> {
    let network = |control: ControlWeights<'_>| {
        let config =
            config(control.config).expect("a ControlNet of another kind was refused before. This is a bug.");
        Ok((ControlNet::new(control.weights, config)?, control.scale))
    };
    controls.into_iter().map(network).collect()
}

/// Why `control` cannot be used with the UNet of `wanted` and the autoencoder of `vae`, if it cannot.
pub(super) fn mismatch(
    wanted: &unet::Config,
    control: &dyn ControlModel,
    vae: &vae::Config,
) -> Option<String> {
    let Some(config) = config(control) else {
        return Some(control.made_for(network_title(wanted)));
    };
    let own = &config.network;
    // Configurations that are not supported at all are refused when the network is created.
    let held = own.skip_channels().ok().zip(wanted.skip_channels().ok());
    let same = own.context_features() == wanted.context_features()
        && own.block_out_channels == wanted.block_out_channels
        && held.is_none_or(|(own, wanted)| own == wanted);
    if !same {
        return Some(control.made_for(network_title(wanted)));
    }
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
    let differs = numbers.into_iter().find(|(_, own, wanted, _)| own != wanted);
    differs.map(|(name, own, wanted, whose)| format!("its {name} are {own}, and {whose} have {wanted}"))
}
