//! The UNets of Stable Diffusion 1, 2 and XL: diffusers' `UNet2DConditionModel`.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022; Podell et al.,
//! "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023. The down path halves
//! the resolution level by level, the up path doubles it again. Skip connections carry feature maps of the
//! down path to the up path.

pub(crate) mod block;
pub(crate) mod block_layout;
pub(crate) mod conditions;
mod config;
pub(crate) mod footprint;
mod levels;
mod residual;
mod sampling;
pub(crate) mod time;
mod transformer;
pub(crate) mod work;

use candle_core::{DType, Tensor};
use sd_ops::converted;
use sd_weights::{Blocks, Weights};

pub use conditions::{AddedConditions, ConditioningInputs, Conditions};
pub use config::{Config, OneOrEach};

use crate::{Error, Result};
use block::{Block, Stream};
use block_layout::BlockSpec;
use time::TimeEntry;

/// The name of the network in errors.
const NETWORK: &str = "UNet";

/// A network that predicts the noise in latents, or another target of its scheduler.
#[derive(Debug)]
pub struct UNet {
    config: Config,
    weights: Weights,
    time: Blocks<TimeEntry>,
    layout: Vec<BlockSpec>,
    blocks: Blocks<Block>,
    activation_type: DType,
}

/// Latents, `[texts, in_channels, height, width]`, and their conditions.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The noisy latents, scaled by the scheduler and repeated for every text; for a 9-channel inpainting
    /// model followed by the mask and the masked latents.
    pub latents: &'a Tensor,
    /// The text embeddings and time embeddings.
    pub conditions: &'a Conditions,
    /// The residuals of ControlNets.
    pub control: Option<&'a Residuals>,
}

/// The residuals that a ControlNet adds to feature maps of a UNet (diffusers: `down_block_res_samples` and
/// `mid_block_res_sample`).
#[derive(Debug, Clone)]
pub struct Residuals {
    /// For each skip connection, from the first: `[texts, channels, height, width]`.
    pub down: Vec<Tensor>,
    /// For the result of the middle block.
    pub middle: Tensor,
}

impl Residuals {
    /// The sums with the residuals of another ControlNet.
    ///
    /// # Errors
    /// The shapes differ, or the device fails.
    pub fn plus(self, other: &Self) -> Result<Self> {
        let down = self.down.into_iter().zip(&other.down);
        Ok(Self {
            down: down
                .map(|(one, other)| one + other)
                .collect::<candle_core::Result<_>>()?,
            middle: (self.middle + &other.middle)?,
        })
    }
}

impl UNet {
    /// The UNet that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check(NETWORK)?;
        if config.up_block_types.is_empty() {
            return Err(Error::Config {
                network: NETWORK,
                reason: "up_block_types is empty".to_owned(),
            });
        }
        let layout = block_layout::full(config, NETWORK)?;
        let (of_time, of_blocks, list) = (config.clone(), config.clone(), layout.clone());
        let scopes: Vec<Weights> = layout.iter().map(|spec| spec.weights(&weights)).collect();
        Ok(Self {
            time: Blocks::single(weights.for_one_pass(), move |weights| {
                TimeEntry::new(weights, &of_time)
            })?,
            blocks: Blocks::new(scopes, move |index, weights| {
                Block::new(&list[index], weights, &of_blocks)
            })?,
            activation_type: weights.options().activation_type(),
            layout,
            config: config.clone(),
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
    ///
    /// # Errors
    /// An input does not fit the network, a file is damaged, or the device fails.
    pub fn condition(&self, inputs: &ConditioningInputs<'_>) -> Result<Conditions> {
        inputs.check(&self.config, NETWORK)?;
        let time = self.time.block(0)?.embed(inputs, self.activation_type)?;
        let context = converted(inputs.context, self.activation_type)?;
        Ok(Conditions::new(time, context, inputs)?)
    }

    /// The prediction for each of `inputs` at a step, counted from 0: `[texts, out_channels, height, width]`
    /// each. Each block runs for all inputs before the next one.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub fn forward(&self, inputs: &[Input<'_>], step: usize) -> Result<Vec<Tensor>> {
        let mut streams = Vec::with_capacity(inputs.len());
        for input in inputs {
            input
                .conditions
                .check(input.latents, self.config.in_channels, step, NETWORK)?;
            self.check_control(input.control)?;
            let latents = converted(input.latents, self.activation_type)?;
            streams.push(Some((Stream::new(latents), input.conditions.at_step(step)?)));
        }
        for (spec, block) in self.layout.iter().zip(self.blocks.pass()?) {
            let block = block?;
            for (stream, input) in streams.iter_mut().zip(inputs) {
                // Moved out, so that the block can drop the feature maps after their last use.
                if let Some((taken, at)) = stream.take() {
                    let control = input.control.map(|control| control.down.as_slice());
                    let mut after = block.forward(taken, spec.kind, &at, control)?;
                    if spec.is_skip {
                        after.push_skip();
                    }
                    if let Some(control) = input.control.filter(|_| spec.ends_middle) {
                        after = after.with(&control.middle)?;
                    }
                    *stream = Some((after, at));
                }
            }
        }
        Ok(streams
            .into_iter()
            .flatten()
            .map(|(stream, _)| stream.x)
            .collect())
    }

    fn check_control(&self, control: Option<&Residuals>) -> Result<()> {
        let skips = self.layout.iter().filter(|spec| spec.is_skip);
        match (control, skips.count()) {
            (Some(control), skips) if control.down.len() != skips => Err(Error::Input {
                network: NETWORK,
                found: format!("{} residuals of a ControlNet", control.down.len()),
                wanted: format!("{skips}, from a ControlNet for this UNet"),
            }),
            _ => Ok(()),
        }
    }
}

impl BlockSpec {
    /// The scope of the block inside `weights`, those of the whole network.
    pub(crate) fn weights(&self, weights: &Weights) -> Weights {
        if self.scope.is_empty() {
            weights.clone()
        } else {
            weights.scope(&self.scope)
        }
    }
}
