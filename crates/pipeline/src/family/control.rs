//! The configurations of ControlNets, by the kind of network that they are for.

use sd_models::{controlnet, mmdit};
use sd_weights::{ModelSource, Weights};

use super::titles::{STABLE_DIFFUSION_3, network_title};
use crate::components;
use crate::{Error, Result};

/// The configuration of a ControlNet, by the kind of network that it is for.
#[derive(Debug, Clone)]
pub enum ControlConfig {
    /// A ControlNet for a UNet.
    UNet(Box<controlnet::Config>),
    /// A ControlNet for a transformer of Stable Diffusion 3.
    Transformer(mmdit::control::Config),
}

/// The weights of a ControlNet, of which none is read yet, with its configuration and scale.
#[derive(Debug)]
pub struct ControlWeights<'a> {
    /// Its weights.
    pub weights: Weights,
    /// Its configuration.
    pub config: &'a ControlConfig,
    /// The conditioning scale; 1 is the scale of training.
    pub scale: f64,
}

impl ControlConfig {
    /// Recognises a ControlNet by its tensors, never by a name.
    ///
    /// # Errors
    /// It is of an unknown kind, or a file is wrong.
    pub(crate) fn open(source: &dyn ModelSource, component: &str) -> Result<Self> {
        const UNET: [&str; 2] = [
            "controlnet_cond_embedding.conv_in.weight",
            "controlnet_mid_block.weight",
        ];
        const TRANSFORMER: [&str; 2] = ["pos_embed_input.proj.weight", "controlnet_blocks.0.weight"];
        let checkpoint = source.checkpoint(component)?;
        let has = |tensors: [&str; 2]| tensors.iter().all(|tensor| checkpoint.header(tensor).is_some());
        let of_class = |known| components::check_class(source, None, component, known);
        if has(UNET) {
            of_class(components::CONTROLNETS_OF_UNETS)?;
            Ok(Self::UNet(Box::new(source.config(component)?.json()?)))
        } else if has(TRANSFORMER) {
            of_class(components::CONTROLNETS_OF_TRANSFORMERS)?;
            Ok(Self::Transformer(source.config(component)?.json()?))
        } else {
            let reason = format!(
                "it has neither the tensors of one for a UNet ({}) nor of one for {} ({})",
                UNET.join(", "),
                STABLE_DIFFUSION_3,
                TRANSFORMER.join(", ")
            );
            Err(Error::ForeignControl {
                folder: source.path().join(component),
                reason,
            })
        }
    }

    /// Whether it takes latents of the VAE rather than pixels.
    pub(crate) fn takes_latents(&self) -> bool {
        matches!(self, Self::Transformer(_))
    }

    /// Refuses `weights` that lack a tensor of the configuration.
    ///
    /// # Errors
    /// They do.
    pub(crate) fn check(&self, weights: Weights) -> Result<()> {
        match self {
            Self::UNet(config) => drop(controlnet::ControlNet::new(weights, config)?),
            Self::Transformer(config) => drop(mmdit::control::ControlNet::new(weights, config)?),
        }
        Ok(())
    }

    /// The name of the models that it is for, as far as its configuration shows.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::UNet(config) => network_title(&config.network),
            Self::Transformer(_) => STABLE_DIFFUSION_3,
        }
    }

    /// Why it cannot be used with a model of `wanted`.
    pub(super) fn made_for(&self, wanted: &str) -> String {
        let family = self.title();
        if family == wanted {
            format!("it is for another UNet of {family}")
        } else {
            format!("it is for {family}, and the model is {wanted}")
        }
    }
}
