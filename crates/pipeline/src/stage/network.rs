//! The denoising network, UNet or transformer: one interface to condition it, run it, and know its memory.

use candle_core::{Device, Tensor};
use sd_models::mmdit::{self, Transformer, control};
use sd_models::unet::{self, AddedConditions, UNet};
use sd_models::{Conditioned, Footprint, Load};
use sd_weights::WeightOptions;

use super::control::{ControlNetwork, Controls};
use super::encode::EncodedPrompt;
use crate::Result;
use crate::bundle::{Bundle, Denoiser, Family};
use crate::request::ImageSize;

/// The denoising network of a model.
#[derive(Debug)]
pub(crate) enum Network {
    /// A UNet.
    UNet(Box<UNet>),
    /// A transformer of two streams.
    Transformer(Box<Transformer>),
}

/// The conditions of a run, for all evaluations of the network.
#[derive(Debug, Clone)]
pub(crate) enum Conditions {
    UNet(unet::Conditions),
    Transformer(mmdit::Conditions),
}

/// An input of a forward pass of the denoising network.
#[derive(Debug, Clone)]
pub(crate) struct DenoiserInput<'a> {
    /// The latents, repeated for every text; for a 9-channel inpainting model with the mask and the masked latents.
    pub(crate) latents: Tensor,
    /// The latents without the channels of inpainting, as ControlNets take them.
    pub(crate) plain: Tensor,
    /// The conditions of its texts.
    pub(crate) conditions: &'a Conditions,
    /// The index of its only text; none if it has all texts.
    pub(crate) text: Option<usize>,
}

/// The inputs of the conditioning beside the text embeddings.
#[derive(Debug, Clone)]
pub(crate) struct ConditioningInputs<'a> {
    /// The timestep of each evaluation.
    pub(crate) timesteps: &'a [f32],
    /// The time ids of Stable Diffusion XL for each text; empty for other families.
    pub(crate) add_time_ids: Vec<Vec<f32>>,
    /// The guidance scale, for a guidance-distilled network.
    pub(crate) guidance: Option<f64>,
    /// Rows and columns of the latents.
    pub(crate) latents: (usize, usize),
}

impl Network {
    /// The network of `bundle`. It reads no weights yet.
    ///
    /// # Errors
    /// Its files are missing, or its configuration cannot be used.
    pub(crate) fn new(bundle: &Bundle, weight_options: &WeightOptions) -> Result<Self> {
        let weights = bundle.weights(bundle.denoiser.component(), weight_options)?;
        Ok(match &bundle.denoiser {
            Denoiser::UNet(config) => Self::UNet(Box::new(UNet::new(weights, config)?)),
            Denoiser::Transformer(config) => Self::Transformer(Box::new(Transformer::new(weights, config)?)),
        })
    }

    /// Reads every block that stays in memory.
    ///
    /// # Errors
    /// A file is damaged, or the device is out of memory.
    pub(crate) fn load(&self) -> Result<()> {
        match self {
            Self::UNet(network) => network.load()?,
            Self::Transformer(network) => network.load()?,
        }
        Ok(())
    }

    /// Computes the conditions of a run, in one pass over weights that are not used again.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub(crate) fn condition(
        &self,
        prompts: &EncodedPrompt,
        inputs: &ConditioningInputs<'_>,
        device: &Device,
    ) -> Result<Conditions> {
        let context = prompts.context.to_device(device)?;
        let pooled = prompts.pooled.as_ref().map(|pooled| pooled.to_device(device));
        let pooled = pooled.transpose()?;
        Ok(match self {
            Self::UNet(network) => Conditions::UNet(network.condition(&unet::ConditioningInputs {
                timesteps: inputs.timesteps,
                context: &context,
                added: pooled.as_ref().map(|pooled| AddedConditions {
                    text_embeds: pooled,
                    time_ids: &inputs.add_time_ids,
                }),
                guidance: inputs.guidance,
                latents: inputs.latents,
            })?),
            Self::Transformer(network) => {
                let Some(pooled) = &pooled else {
                    unreachable!("the prompts of a transformer are pooled. This is a bug.")
                };
                Conditions::Transformer(network.condition(
                    inputs.timesteps,
                    &context,
                    pooled,
                    inputs.latents,
                )?)
            }
        })
    }

    /// The prediction for each of `inputs`, with `controls`, at an evaluation, counted from 0. Each block runs for all inputs
    /// before the next one.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub(crate) fn forward(
        &self,
        inputs: &[DenoiserInput<'_>],
        controls: &Controls,
        evaluation: usize,
    ) -> Result<Vec<Tensor>> {
        const OTHER: &str = "conditions of another network. This is a bug.";
        Ok(match self {
            Self::UNet(network) => {
                let residuals = controls.residuals(inputs, evaluation)?;
                let inputs = inputs
                    .iter()
                    .zip(&residuals)
                    .map(|(input, residuals)| match input.conditions {
                        Conditions::UNet(conditions) => unet::Input {
                            latents: &input.latents,
                            conditions,
                            control: residuals.as_ref(),
                        },
                        Conditions::Transformer(_) => unreachable!("{OTHER}"),
                    });
                network.forward(&inputs.collect::<Vec<_>>(), evaluation)?
            }
            Self::Transformer(network) => {
                let of_inputs = controls.of_inputs(inputs);
                let controls = controls.beside(&of_inputs);
                let inputs = inputs.iter().map(|input| match input.conditions {
                    Conditions::Transformer(conditions) => mmdit::Input {
                        latents: &input.latents,
                        conditions,
                    },
                    Conditions::UNet(_) => unreachable!("{OTHER}"),
                });
                network.forward(&inputs.collect::<Vec<_>>(), &controls, evaluation)?
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

    /// The memory of a forward pass beside the weights and the conditions, with `controls`: bytes of activations while each
    /// block runs, and the scratch of the operations.
    pub(crate) fn forward_bytes(&self, load: Load, controls: &[ControlNetwork]) -> (Vec<u64>, u64) {
        match self {
            Self::UNet(network) => {
                let mut scratch = network.forward_footprint(load).scratch;
                let mut of_blocks = network.block_activations(load);
                let controls = controls.iter().filter_map(|control| match control {
                    ControlNetwork::UNet(control) => Some(control),
                    ControlNetwork::Transformer(_) => None,
                });
                let mut all_given = 0;
                for control in controls {
                    // ControlNets run before the first block; their residuals are alive until the pass ends.
                    let given = control.residual_bytes(load);
                    let taken = control.forward_footprint(load);
                    all_given += given;
                    of_blocks.iter_mut().for_each(|activations| *activations += given);
                    if let Some(first) = of_blocks.first_mut() {
                        *first = (*first).max(all_given + taken.activations);
                    }
                    scratch = scratch.max(taken.scratch);
                }
                (of_blocks, scratch)
            }
            Self::Transformer(network) => {
                let controls = controls.iter().filter_map(|control| match control {
                    ControlNetwork::Transformer(control) => Some(&**control),
                    ControlNetwork::UNet(_) => None,
                });
                let controls: Vec<&control::ControlNet> = controls.collect();
                let Footprint { activations, scratch } = network.forward_footprint(load, &controls);
                // Its blocks are alike.
                (vec![activations; network.weight_bytes().blocks.len()], scratch)
            }
        }
    }
}

impl Conditions {
    /// Number of texts: the batch size of the latents.
    pub(crate) fn texts(&self) -> usize {
        match self {
            Self::UNet(conditions) => conditions.texts(),
            Self::Transformer(conditions) => conditions.texts(),
        }
    }

    /// The conditions of the text at `index` only.
    pub(crate) fn only(&self, index: usize) -> Self {
        match self {
            Self::UNet(conditions) => Self::UNet(conditions.only(index)),
            Self::Transformer(conditions) => Self::Transformer(conditions.only(index)),
        }
    }
}

/// The aesthetic scores of the refiner for the prompt and for the negative prompt, those of the reference implementation.
const AESTHETIC_SCORE: f32 = 6.0;
const NEGATIVE_AESTHETIC_SCORE: f32 = 2.5;

/// The time ids of Stable Diffusion XL for an image of `size` and for each of `texts`, of which the first is the negative
/// prompt if there are two. The original size and the target size are `size`, and nothing is cropped.
///
/// Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023, section 2.2.
pub(crate) fn add_time_ids(bundle: &Bundle, size: ImageSize, texts: usize) -> Vec<Vec<f32>> {
    let sides = [size.height() as f32, size.width() as f32];
    let crop = [0.0, 0.0];
    let of_text = |text: usize| match bundle.family {
        Family::StableDiffusionXl => [sides, crop, sides].concat(),
        Family::StableDiffusionXlRefiner => {
            let is_negative = texts > 1 && text == 0;
            let score = if is_negative {
                NEGATIVE_AESTHETIC_SCORE
            } else {
                AESTHETIC_SCORE
            };
            [&sides[..], &crop, &[score]].concat()
        }
        Family::StableDiffusion | Family::StableDiffusion3 => Vec::new(),
    };
    (0..texts).map(of_text).collect()
}
