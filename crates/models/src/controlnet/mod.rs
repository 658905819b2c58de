//! ControlNets for the UNets of Stable Diffusion 1, 2 and XL: diffusers' `ControlNetModel`.
//!
//! Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", 2023. A second way down, which
//! sees a picture to be followed beside the latents, adds to what the UNet holds for its way up.

mod config;
mod footprint;
mod picture;

use candle_core::{DType, Tensor};
use sd_ops::{Conv2d, conv2d};
use sd_weights::{Blocks, Weights};

pub use config::{ChannelOrder, Config};

use crate::unet::block::{Block, Stream};
use crate::unet::block_layout::{self, BlockKind, BlockSpec};
use crate::unet::time::TimeEntry;
use crate::unet::{self, ConditioningInputs, Residuals};
use crate::{Error, Result, layers};
use picture::PictureEntry;

/// The name of the network in errors.
const NETWORK: &str = "ControlNet";

/// A network that makes a UNet follow a picture.
#[derive(Debug)]
pub struct ControlNet {
    config: Config,
    weights: Weights,
    time: Blocks<TimeEntry>,
    picture: Blocks<PictureEntry>,
    steps: Vec<Step>,
    blocks: Blocks<ControlBlock>,
    activation_type: DType,
}

/// What steers a ControlNet in a run: what steers its UNet, and the picture that is followed.
#[derive(Debug, Clone)]
pub struct Conditions {
    texts: unet::Conditions,
    /// `[1, channels, height, width]`
    picture: Tensor,
}

/// Latents, `[texts, in_channels, height, width]`, and what steers them.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The noisy latents, as the UNet takes them, without what inpainting adds.
    pub latents: &'a Tensor,
    /// The texts and the picture.
    pub conditions: &'a Conditions,
    /// How strongly the picture is followed; 1 is as it was trained.
    pub scale: f64,
}

/// A place in the list of blocks.
#[derive(Debug, Clone)]
enum Step {
    /// A block as the UNet has it.
    Shared(BlockSpec),
    /// What is added to the result of the block before, in the UNet.
    Adds { scope: String, channels: usize },
}

#[derive(Debug)]
enum ControlBlock {
    Shared(Block),
    Adds(Conv2d),
}

impl Conditions {
    /// How many texts there are: the batch that latents must come in.
    pub fn texts(&self) -> usize {
        self.texts.texts()
    }

    /// The text at `index` alone, with the picture.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            texts: self.texts.only(index),
            picture: self.picture.clone(),
        }
    }
}

impl ControlNet {
    /// The ControlNet that `config` describes. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration cannot be used, or the file does not hold what it describes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let config = config.checked(NETWORK)?;
        let steps = steps(block_layout::down_and_middle(&config.network, NETWORK)?);
        let (of_time, of_picture, of_blocks) = (config.clone(), config.clone(), config.clone());
        let list = steps.clone();
        let scopes: Vec<Weights> = steps.iter().map(|step| step.weights(&weights)).collect();
        let once = weights.for_one_pass();
        Ok(Self {
            time: Blocks::single(once.clone(), move |weights| {
                TimeEntry::new(weights, &of_time.network)
            })?,
            picture: Blocks::single(once.scope("controlnet_cond_embedding"), move |weights| {
                PictureEntry::new(weights, &of_picture)
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

    /// Reads every block that is to stay in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    pub fn load(&self) -> Result<()> {
        Ok(self.blocks.load()?)
    }

    /// What steers a run, for all of its steps. It uses weights that are not needed again. `picture` is
    /// `[1, conditioning_channels, factor * height, factor * width]` with values from 0 to 1 and red first.
    ///
    /// # Errors
    /// Something does not fit the network, a file is wrong, or the device fails.
    pub fn condition(&self, inputs: &ConditioningInputs<'_>, picture: &Tensor) -> Result<Conditions> {
        inputs.check(&self.config.network, NETWORK)?;
        let (height, width) = inputs.latents;
        let factor = self.config.downsampling();
        let wanted = [
            1,
            self.config.conditioning_channels,
            factor * height,
            factor * width,
        ];
        if picture.dims() != wanted {
            return Err(Error::Input {
                network: NETWORK,
                found: format!("a picture {:?}", picture.dims()),
                wanted: format!("{wanted:?}"),
            });
        }
        let time = self.time.block(0)?.embed(inputs, self.activation_type)?;
        let context = inputs.context.to_dtype(self.activation_type)?;
        let picture = picture.to_dtype(self.activation_type)?;
        Ok(Conditions {
            texts: unet::Conditions::new(time, context, inputs)?,
            picture: self.picture.block(0)?.embed(&picture)?,
        })
    }

    /// What is added in the UNet for each of `inputs` at a step, counted from 0. A block is used for all of them before
    /// the next one is.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn forward(&self, inputs: &[Input<'_>], step: usize) -> Result<Vec<Residuals>> {
        let mut streams = Vec::with_capacity(inputs.len());
        for input in inputs {
            let texts = &input.conditions.texts;
            texts.check(input.latents, self.config.network.in_channels, step, NETWORK)?;
            let stream = Stream::new(input.latents.to_dtype(self.activation_type)?);
            streams.push(Some((stream, texts.at_step(step)?)));
        }
        let mut added: Vec<Vec<Tensor>> = vec![Vec::new(); inputs.len()];
        for (step, block) in self.steps.iter().zip(self.blocks.pass()?) {
            let block = block?;
            for ((stream, added), input) in streams.iter_mut().zip(&mut added).zip(inputs) {
                // Taken out, so that pictures go as soon as the block is through with them.
                let Some((taken, at)) = stream.take() else {
                    continue;
                };
                let after = match (step, &*block) {
                    (Step::Shared(spec), ControlBlock::Shared(block)) => {
                        let after = block.forward(taken, spec.kind, &at, None)?;
                        match spec.kind {
                            BlockKind::Entry { .. } => after.with(&input.conditions.picture)?,
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

/// The blocks of a ControlNet: after each whose result the UNet holds, and after the last, that which adds to it.
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
    /// The scope of `weights`, those of the whole network, that this block is made from.
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
