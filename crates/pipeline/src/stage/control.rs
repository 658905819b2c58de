//! The ControlNets of a run and their conditions.

use candle_core::{DType, Device, Tensor};
use sd_models::Conditioned;
use sd_models::controlnet::{self, ControlNet};
use sd_models::mmdit::control;
use sd_models::unet::{self, AddedConditions, Residuals};
use sd_models::vae::{Encoder, Scaling};
use sd_weights::{Residency, WeightOptions};

use super::encode::EncodedPrompt;
use super::finite;
use super::network::{ConditioningInputs, DenoiserInput};
use crate::Result;
use crate::bundle::{Bundle, Control, ControlConfig};

/// A ControlNet, by the network that it controls.
#[derive(Debug)]
pub(crate) enum ControlNetwork {
    /// For a UNet.
    UNet(Box<ControlNet>),
    /// For a transformer of two streams.
    Transformer(Box<control::ControlNet>),
}

/// The ControlNets of a run with their conditions.
#[derive(Debug)]
pub(crate) enum Controls {
    UNet(Vec<AtWork<ControlNet, controlnet::Conditions>>),
    Transformer(Vec<AtWork<control::ControlNet, control::Conditions>>),
}

/// A ControlNet with its conditions.
#[derive(Debug)]
pub(crate) struct AtWork<N, C> {
    network: Box<N>,
    conditions: C,
    scale: f64,
}

/// The conditions of a ControlNet for each of a transformer's inputs.
pub(crate) type OfInputs = Vec<control::Conditions>;

impl ControlNetwork {
    /// The ControlNet of `control`. It reads no weights yet.
    ///
    /// # Errors
    /// Its files are missing, or its configuration cannot be used.
    pub(crate) fn new(control: &Control, weight_options: &WeightOptions) -> Result<Self> {
        let weights = control.weights(weight_options)?;
        Ok(match &control.config {
            ControlConfig::UNet(config) => Self::UNet(Box::new(ControlNet::new(weights, config)?)),
            ControlConfig::Transformer(config) => {
                Self::Transformer(Box::new(control::ControlNet::new(weights, config)?))
            }
        })
    }

    /// The memory of the network and of its conditions.
    pub(crate) fn conditioned(&self) -> &dyn Conditioned {
        match self {
            Self::UNet(network) => &**network,
            Self::Transformer(network) => &**network,
        }
    }
}

impl Controls {
    /// Computes the conditions of the ControlNets of `bundle` for all evaluations. Their blocks are kept in memory if `stay` is
    /// set, and streamed otherwise.
    ///
    /// # Errors
    /// An input does not fit a network, a file is damaged, a value is not finite, or the device fails.
    pub(super) fn load(
        bundle: &Bundle,
        prompts: &EncodedPrompt,
        inputs: &ConditioningInputs<'_>,
        stay: bool,
        weight_options: &WeightOptions,
    ) -> Result<Self> {
        let residency = if stay {
            Residency::Resident
        } else {
            Residency::Streamed
        };
        let followed = followed_latents(bundle, weight_options)?;
        let weight_options = weight_options.with_residency(residency);
        let device = &weight_options.device;
        let context = prompts.context.to_device(device)?;
        let pooled = prompts
            .pooled
            .as_ref()
            .map(|pooled| pooled.to_device(device))
            .transpose()?;
        let of_unet_inputs = unet::ConditioningInputs {
            timesteps: inputs.timesteps,
            context: &context,
            added: pooled.as_ref().map(|pooled| AddedConditions {
                text_embeds: pooled,
                time_ids: &inputs.add_time_ids,
            }),
            guidance: None,
            latents: inputs.latents,
        };
        let (mut of_unet, mut of_transformer) = (Vec::new(), Vec::new());
        for (control, latents) in bundle.controls().iter().zip(followed) {
            let picture = latents.map_or_else(|| control.shown(), Ok)?.to_device(device)?;
            let scale = control.choice.scale;
            match ControlNetwork::new(control, &weight_options)? {
                ControlNetwork::UNet(network) => {
                    let conditions = network.condition(&of_unet_inputs, &picture)?;
                    if super::reads_before_passes(device) {
                        network.load()?;
                    }
                    of_unet.push(AtWork {
                        network,
                        conditions,
                        scale,
                    });
                }
                ControlNetwork::Transformer(network) => {
                    let Some(pooled) = &pooled else {
                        unreachable!("the prompts of a transformer are pooled. This is a bug.")
                    };
                    let conditions = network.condition(inputs.timesteps, &context, pooled, &picture)?;
                    if super::reads_before_passes(device) {
                        network.load()?;
                    }
                    of_transformer.push(AtWork {
                        network,
                        conditions,
                        scale,
                    });
                }
            }
        }
        Ok(if of_transformer.is_empty() {
            Self::UNet(of_unet)
        } else {
            Self::Transformer(of_transformer)
        })
    }

    /// The residuals of a UNet for each of `inputs` at an evaluation. None if there are no ControlNets.
    ///
    /// # Errors
    /// A file is damaged, or the device fails.
    pub(super) fn residuals(
        &self,
        inputs: &[DenoiserInput<'_>],
        evaluation: usize,
    ) -> Result<Vec<Option<Residuals>>> {
        let mut sums: Vec<Option<Residuals>> = vec![None; inputs.len()];
        let Self::UNet(at_work) = self else {
            return Ok(sums);
        };
        for AtWork {
            network,
            conditions,
            scale,
        } in at_work
        {
            let conditions: Vec<controlnet::Conditions> = inputs
                .iter()
                .map(|input| match input.text {
                    Some(text) => conditions.only(text),
                    None => conditions.clone(),
                })
                .collect();
            let inputs = inputs
                .iter()
                .zip(&conditions)
                .map(|(input, conditions)| controlnet::Input {
                    latents: &input.plain,
                    conditions,
                    scale: *scale,
                });
            let added = network.forward(&inputs.collect::<Vec<_>>(), evaluation)?;
            for (sum, added) in sums.iter_mut().zip(added) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum.plus(&added)?,
                    None => added,
                });
            }
        }
        Ok(sums)
    }

    /// The conditions of each ControlNet of a transformer for each of `inputs`.
    pub(super) fn of_inputs(&self, inputs: &[DenoiserInput<'_>]) -> Vec<OfInputs> {
        let Self::Transformer(at_work) = self else {
            return Vec::new();
        };
        let of = |conditions: &control::Conditions| {
            inputs
                .iter()
                .map(|input| match input.text {
                    Some(text) => conditions.only(text),
                    None => conditions.clone(),
                })
                .collect()
        };
        at_work.iter().map(|at_work| of(&at_work.conditions)).collect()
    }

    /// The ControlNets that work beside a transformer, with what [`of_inputs`](Self::of_inputs) gave.
    pub(super) fn beside<'a>(&'a self, of_inputs: &'a [OfInputs]) -> Vec<control::Control<'a>> {
        let Self::Transformer(at_work) = self else {
            return Vec::new();
        };
        at_work
            .iter()
            .zip(of_inputs)
            .map(|(at_work, conditions)| control::Control {
                network: &at_work.network,
                conditions,
                scale: at_work.scale,
            })
            .collect()
    }
}

/// The latents of the picture that each ControlNet of a transformer follows, in the processor's memory, by the autoencoder of
/// `bundle`, which is read once and dropped at the end. None for those of a UNet.
///
/// Of the latents' distribution the mean is taken. diffusers draws from it with noise of which no seed knows.
fn followed_latents(bundle: &Bundle, weight_options: &WeightOptions) -> Result<Vec<Option<Tensor>>> {
    const COMPONENT: &str = "vae";
    let mut encoder = None;
    let mut latents = |control: &Control, is_shifted: bool| -> Result<Tensor> {
        let encoder = match &mut encoder {
            Some(encoder) => encoder,
            none => {
                let weights =
                    bundle.weights(COMPONENT, &weight_options.with_residency(Residency::Resident))?;
                none.insert(Encoder::new(weights, &bundle.vae)?)
            }
        };
        let encoded = encoder.encode(&control.shown()?.to_device(&weight_options.device)?)?;
        let mean = encoded.mean.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        finite::check(&mean, "the encoder of what is followed", bundle, COMPONENT)?;
        let scaling = if is_shifted {
            Scaling::Shifted
        } else {
            Scaling::Factor
        };
        Ok(bundle.vae.scale(&mean, scaling)?)
    };
    let of = |control: &Control| match &control.config {
        ControlConfig::UNet(_) => Ok(None),
        // Those that were trained without the pooled text were trained so that nothing is taken from latents either.
        ControlConfig::Transformer(config) => {
            latents(control, !config.force_zeros_for_pooled_projection).map(Some)
        }
    };
    bundle.controls().iter().map(of).collect()
}
