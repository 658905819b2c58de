//! The denoising network, whichever it is: one way to steer it, to ask it, and to know its bytes.

use candle_core::{Device, Tensor};
use sd_models::mmdit::{self, Transformer, control};
use sd_models::unet::{self, Added, Steering, UNet};
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

/// What steers the pictures of a run, for all evaluations of the network.
#[derive(Debug, Clone)]
pub(crate) enum Conditions {
    UNet(unet::Conditions),
    Transformer(mmdit::Conditions),
}

/// What the network is asked in a pass.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    /// The latents, once for every text, with what a network that fills masks is told.
    pub(crate) latents: Tensor,
    /// The latents alone, as ControlNets take them.
    pub(crate) plain: Tensor,
    /// What steers it.
    pub(crate) conditions: &'a Conditions,
    /// The text that it is asked about alone; all of them where there is none.
    pub(crate) text: Option<usize>,
}

/// What a run tells the network beside the texts.
#[derive(Debug, Clone)]
pub(crate) struct Told<'a> {
    /// The noise of each evaluation.
    pub(crate) timesteps: &'a [f32],
    /// For each text the numbers that a network of Stable Diffusion XL is told; empty for others.
    pub(crate) numbers: Vec<Vec<f32>>,
    /// The guidance scale, for a network that was distilled to be told it.
    pub(crate) guidance: Option<f64>,
    /// Rows and columns of the latents.
    pub(crate) latents: (usize, usize),
}

impl Network {
    /// The network of `bundle`. Nothing is read yet.
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

    /// Reads every block that is to stay in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    pub(crate) fn load(&self) -> Result<()> {
        match self {
            Self::UNet(network) => network.load()?,
            Self::Transformer(network) => network.load()?,
        }
        Ok(())
    }

    /// What steers the pictures of a run: one pass over weights that are not needed again.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub(crate) fn condition(
        &self,
        prompts: &EncodedPrompt,
        told: &Told<'_>,
        device: &Device,
    ) -> Result<Conditions> {
        let context = prompts.context.to_device(device)?;
        let pooled = prompts.pooled.as_ref().map(|pooled| pooled.to_device(device));
        let pooled = pooled.transpose()?;
        Ok(match self {
            Self::UNet(network) => Conditions::UNet(network.condition(&Steering {
                timesteps: told.timesteps,
                context: &context,
                added: pooled.as_ref().map(|pooled| Added {
                    pooled,
                    numbers: &told.numbers,
                }),
                guidance: told.guidance,
                latents: told.latents,
            })?),
            Self::Transformer(network) => {
                let Some(pooled) = &pooled else {
                    unreachable!("the prompts of a transformer are pooled. This is a bug.")
                };
                Conditions::Transformer(network.condition(told.timesteps, &context, pooled, told.latents)?)
            }
        })
    }

    /// The prediction for each of `asked`, with `controls`, at an evaluation, counted from 0. A block is used for all of them
    /// before the next one is.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub(crate) fn forward(
        &self,
        asked: &[Asked<'_>],
        controls: &Controls,
        evaluation: usize,
    ) -> Result<Vec<Tensor>> {
        const OTHER: &str = "conditions are asked with the network that made them. This is a bug.";
        Ok(match self {
            Self::UNet(network) => {
                let added = controls.residuals(asked, evaluation)?;
                let inputs = asked
                    .iter()
                    .zip(&added)
                    .map(|(asked, added)| match asked.conditions {
                        Conditions::UNet(conditions) => unet::Input {
                            latents: &asked.latents,
                            conditions,
                            control: added.as_ref(),
                        },
                        Conditions::Transformer(_) => unreachable!("{OTHER}"),
                    });
                network.forward(&inputs.collect::<Vec<_>>(), evaluation)?
            }
            Self::Transformer(network) => {
                let inputs = asked.iter().map(|asked| match asked.conditions {
                    Conditions::Transformer(conditions) => mmdit::Input {
                        latents: &asked.latents,
                        conditions,
                    },
                    Conditions::UNet(_) => unreachable!("{OTHER}"),
                });
                let of_inputs = controls.of_inputs(asked);
                let controls = controls.beside(&of_inputs);
                network.forward(&inputs.collect::<Vec<_>>(), &controls, evaluation)?
            }
        })
    }

    /// Its bytes, and those of its conditions.
    pub(crate) fn conditioned(&self) -> &dyn Conditioned {
        match self {
            Self::UNet(network) => &**network,
            Self::Transformer(network) => &**network,
        }
    }

    /// What a forward pass takes beside the weights and the conditions, with `controls`: bytes of activations while each
    /// block is computed with, and bytes that operations take for themselves.
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
                    // They work before the first block, and what they give stays until the pass ends.
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
    /// How many texts there are: the batch that latents must come in.
    pub(crate) fn texts(&self) -> usize {
        match self {
            Self::UNet(conditions) => conditions.texts(),
            Self::Transformer(conditions) => conditions.texts(),
        }
    }

    /// The text at `index` alone.
    pub(crate) fn only(&self, index: usize) -> Self {
        match self {
            Self::UNet(conditions) => Self::UNet(conditions.only(index)),
            Self::Transformer(conditions) => Self::Transformer(conditions.only(index)),
        }
    }
}

/// The aesthetic scores that the refiner is told of what is wanted and of what is not, those of the reference
/// implementation.
const AESTHETIC_SCORE: f32 = 6.0;
const NEGATIVE_AESTHETIC_SCORE: f32 = 2.5;

/// What a network of Stable Diffusion XL is told of a picture of `size` for each of `texts`, of which the first is the
/// negative prompt where there are two: it was never cropped, and is as large as it is aimed to be.
///
/// Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023, section 2.2.
pub(crate) fn numbers(bundle: &Bundle, size: ImageSize, texts: usize) -> Vec<Vec<f32>> {
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
