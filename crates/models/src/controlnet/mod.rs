//! ControlNets for the UNets of Stable Diffusion 1, 2 and XL: diffusers' `ControlNetModel`.
//!
//! Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", 2023. A second
//! down path sees a control image beside the latents, and adds residuals to the skip connections of the UNet.

mod conditioning_embedding;
mod config;
mod footprint;
mod work;

use candle_core::{DType, Tensor};
use sd_ops::{Conv2d, conv2d, converted};
use sd_weights::{Blocks, Weights};

pub use config::{ChannelOrder, Config};

use crate::unet::block::{Block, Stream};
use crate::unet::block_layout::{self, BlockKind, BlockSpec};
use crate::unet::time::TimeEntry;
use crate::unet::{self, ConditioningInputs, Residuals};
use crate::{Error, Result, layers};
use conditioning_embedding::ConditioningEmbedding;

/// The name of the network in errors.
const NETWORK: &str = "ControlNet";

/// A network that makes a UNet follow a control image.
#[derive(Debug)]
pub struct ControlNet {
    config: Config,
    weights: Weights,
    time: Blocks<TimeEntry>,
    control_image: Blocks<ConditioningEmbedding>,
    steps: Vec<Step>,
    blocks: Blocks<ControlBlock>,
    activation_type: DType,
}

/// The conditions of a ControlNet in a run: those of its UNet, and the embedded control image.
#[derive(Debug, Clone)]
pub struct Conditions {
    texts: unet::Conditions,
    /// `[1, channels, height, width]`
    control_image: Tensor,
}

/// Latents, `[texts, in_channels, height, width]`, and their conditions.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The noisy latents, as the UNet takes them, without the channels of inpainting.
    pub latents: &'a Tensor,
    /// The texts and the control image.
    pub conditions: &'a Conditions,
    /// The factor of the residuals (diffusers: `controlnet_conditioning_scale`); 1 is as it was trained.
    pub scale: f64,
}

/// An entry of the layout.
#[derive(Debug, Clone)]
enum Step {
    /// A block of the UNet's architecture.
    Shared(BlockSpec),
    /// The 1x1 convolution from the result of the block before to its residual.
    Adds { scope: String, channels: usize },
}

#[derive(Debug)]
enum ControlBlock {
    Shared(Block),
    Adds(Conv2d),
}

impl Conditions {
    /// Number of texts: the batch size of the latents.
    pub fn texts(&self) -> usize {
        self.texts.texts()
    }

    /// The conditions of the text at `index` only, with the control image.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            texts: self.texts.only(index),
            control_image: self.control_image.clone(),
        }
    }
}

impl ControlNet {
    /// The ControlNet that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let config = config.checked(NETWORK)?;
        let steps = steps(block_layout::down_and_middle(&config.network, NETWORK)?);
        let (of_time, of_embedding, of_blocks) = (config.clone(), config.clone(), config.clone());
        let list = steps.clone();
        let scopes: Vec<Weights> = steps.iter().map(|step| step.weights(&weights)).collect();
        let once = weights.for_one_pass();
        Ok(Self {
            time: Blocks::single(once.clone(), move |weights| {
                TimeEntry::new(weights, &of_time.network)
            })?,
            control_image: Blocks::single(once.scope("controlnet_cond_embedding"), move |weights| {
                ConditioningEmbedding::new(weights, &of_embedding)
            })?,
            blocks: Blocks::new(scopes, move |index, weights| {
                ControlBlock::new(&list[index], weights, &of_blocks)
            })?,
            activation_type: weights.options().activation_type(),
            steps,
            config,
            weights,
        })
    }

    /// Reads every block that stays in memory.
    ///
    /// # Errors
    /// A file is damaged, or the device is out of memory.
    pub fn load(&self) -> Result<()> {
        Ok(self.blocks.load()?)
    }

    /// Computes the conditions of a run for all of its steps, with weights that are not used again.
    /// `control_image`, the control image, is `[1, conditioning_channels, factor * height, factor * width]` in RGB
    /// order with values from 0 to 1.
    ///
    /// # Errors
    /// An input does not fit the network, a file is damaged, or the device fails.
    pub fn condition(&self, inputs: &ConditioningInputs<'_>, control_image: &Tensor) -> Result<Conditions> {
        inputs.check(&self.config.network, NETWORK)?;
        let (height, width) = inputs.latents;
        let factor = self.config.downsampling();
        let wanted = [
            1,
            self.config.conditioning_channels,
            factor * height,
            factor * width,
        ];
        if control_image.dims() != wanted {
            return Err(Error::Input {
                network: NETWORK,
                found: format!("a control image of {:?}", control_image.dims()),
                wanted: format!("{wanted:?}"),
            });
        }
        let time = self.time.block(0)?.embed(inputs, self.activation_type)?;
        let context = converted(inputs.context, self.activation_type)?;
        let control_image = converted(control_image, self.activation_type)?;
        Ok(Conditions {
            texts: unet::Conditions::new(time, context, inputs)?,
            control_image: self.control_image.block(0)?.embed(&control_image)?,
        })
    }

    /// The residuals for the UNet for each of `inputs` at a step, counted from 0. Each block runs for all
    /// inputs before the next one.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub fn forward(&self, inputs: &[Input<'_>], step: usize) -> Result<Vec<Residuals>> {
        let mut streams = Vec::with_capacity(inputs.len());
        for input in inputs {
            let texts = &input.conditions.texts;
            texts.check(input.latents, self.config.network.in_channels, step, NETWORK)?;
            let stream = Stream::new(converted(input.latents, self.activation_type)?);
            streams.push(Some((stream, texts.at_step(step)?)));
        }
        let mut added: Vec<Vec<Tensor>> = vec![Vec::new(); inputs.len()];
        for (step, block) in self.steps.iter().zip(self.blocks.pass()?) {
            let block = block?;
            for ((stream, added), input) in streams.iter_mut().zip(&mut added).zip(inputs) {
                // Moved out, so that the block can drop the feature maps after their last use.
                let Some((taken, at)) = stream.take() else {
                    continue;
                };
                let after = match (step, &*block) {
                    (Step::Shared(spec), ControlBlock::Shared(block)) => {
                        let after = block.forward(taken, spec.kind, &at, None)?;
                        match spec.kind {
                            BlockKind::Entry { .. } => after.with(&input.conditions.control_image)?,
                            _ => after,
                        }
                    }
                    (_, ControlBlock::Adds(convolution)) => {
                        added.push((conv2d(&taken.x, convolution)? * input.scale)?);
                        taken
                    }
                    (Step::Adds { .. }, _) => {
                        unreachable!("blocks lie in the order of their steps. This is a bug.")
                    }
                };
                *stream = Some((after, at));
            }
        }
        let residuals = added.into_iter().map(|mut down| {
            let Some(middle) = down.pop() else {
                unreachable!("there is always a middle. This is a bug.")
            };
            Residuals { down, middle }
        });
        Ok(residuals.collect())
    }
}

/// The layout of a ControlNet: a residual's convolution after each block whose result is a skip connection,
/// and one after the last block.
fn steps(layout: Vec<BlockSpec>) -> Vec<Step> {
    let (mut steps, mut skips) = (Vec::new(), 0);
    for spec in layout {
        let (is_skip, ends_middle) = (spec.is_skip, spec.ends_middle);
        let channels = spec.kind.channels();
        steps.push(Step::Shared(spec));
        if is_skip {
            let scope = format!("controlnet_down_blocks.{skips}");
            steps.push(Step::Adds { scope, channels });
            skips += 1;
        }
        if ends_middle {
            let scope = "controlnet_mid_block".to_owned();
            steps.push(Step::Adds { scope, channels });
        }
    }
    steps
}

impl Step {
    /// The scope of the block inside `weights`, those of the whole network.
    fn weights(&self, weights: &Weights) -> Weights {
        match self {
            Self::Shared(spec) => spec.weights(weights),
            Self::Adds { scope, .. } => weights.scope(scope),
        }
    }
}

impl ControlBlock {
    fn new(step: &Step, weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        Ok(match step {
            Step::Shared(spec) => Self::Shared(Block::new(spec, weights, &config.network)?),
            Step::Adds { channels, .. } => {
                Self::Adds(layers::conv2d(weights, *channels, *channels, 1, 1, 0)?)
            }
        })
    }
}
