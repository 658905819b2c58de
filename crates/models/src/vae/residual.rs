//! The parts that encoder and decoder are made of: residual blocks and the lowest level.

use candle_core::Tensor;
use sd_ops::{Conv2d, GroupNorm, Linear, attention, conv2d, group_norm, group_norm_silu, linear};
use sd_weights::{Result, Weights};

use super::config::{Config, NORM_EPSILON};
use crate::layers;

/// Two convolutions, each after a norm and silu, around which the input is carried.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(super) fn new(weights: &Weights, groups: usize, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            norm1: layers::group_norm(&weights.scope("norm1"), groups, inputs, NORM_EPSILON)?,
            conv1: layers::conv2d(&weights.scope("conv1"), inputs, outputs, 3, 1, 1)?,
            norm2: layers::group_norm(&weights.scope("norm2"), groups, outputs, NORM_EPSILON)?,
            conv2: layers::conv2d(&weights.scope("conv2"), outputs, outputs, 3, 1, 1)?,
            shortcut: if inputs == outputs {
                None
            } else {
                Some(layers::conv2d(
                    &weights.scope("conv_shortcut"),
                    inputs,
                    outputs,
                    1,
                    1,
                    0,
                )?)
            },
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = conv2d(&group_norm_silu(x, &self.norm1)?, &self.conv1)?;
        let hidden = conv2d(&group_norm_silu(&hidden, &self.norm2)?, &self.conv2)?;
        match &self.shortcut {
            Some(shortcut) => conv2d(x, shortcut)? + hidden,
            None => x + hidden,
        }
    }
}

/// Attention of every place of the lowest level to every other, in a single head.
#[derive(Debug)]
struct SpatialAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    channels: usize,
}

impl SpatialAttention {
    fn new(weights: &Weights, groups: usize, channels: usize) -> Result<Self> {
        // The first releases of Stable Diffusion saved these under other names, and as convolutions at times.
        let projection = |name: &str, old: &str| {
            let name = if weights.contains(&format!("{old}.weight")) {
                old
            } else {
                name
            };
            let weights = weights.scope(name);
            if weights.shape("weight").is_some_and(|shape| shape.len() == 4) {
                let weight = weights.tensor("weight", &[channels, channels, 1, 1])?;
                let weight = weight.reshape((channels, channels))?;
                return Ok(Linear::new(weight, Some(weights.tensor("bias", &[channels])?))?);
            }
            layers::linear(&weights, channels, channels)
        };
        Ok(Self {
            norm: layers::group_norm(&weights.scope("group_norm"), groups, channels, NORM_EPSILON)?,
            query: projection("to_q", "query")?,
            key: projection("to_k", "key")?,
            value: projection("to_v", "value")?,
            output: projection("to_out.0", "proj_attn")?,
            channels,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let places = height * width;
        let tokens = group_norm(x, &self.norm)?
            .reshape((batch, channels, places))?
            .transpose(1, 2)?
            .contiguous()?;
        let head = |projection: &Linear| linear(&tokens, projection)?.reshape((batch, 1, places, channels));
        let scale = 1.0 / (self.channels as f64).sqrt();
        let mixed = attention(
            &head(&self.query)?,
            &head(&self.key)?,
            &head(&self.value)?,
            None,
            scale,
        )?;
        let mixed = linear(&mixed.reshape((batch, places, channels))?, &self.output)?;
        x + mixed.transpose(1, 2)?.reshape((batch, channels, height, width))?
    }
}

/// The lowest level: a residual block, attention, and another residual block.
#[derive(Debug)]
pub(super) struct MiddleBlock {
    first: ResidualBlock,
    attention: Option<SpatialAttention>,
    second: ResidualBlock,
}

impl MiddleBlock {
    pub(super) fn new(weights: &Weights, config: &Config, channels: usize) -> Result<Self> {
        let groups = config.norm_num_groups;
        let residual = |index: usize| {
            ResidualBlock::new(&weights.scope("resnets").scope(index), groups, channels, channels)
        };
        Ok(Self {
            first: residual(0)?,
            attention: if config.mid_block_add_attention {
                Some(SpatialAttention::new(
                    &weights.scope("attentions.0"),
                    groups,
                    channels,
                )?)
            } else {
                None
            },
            second: residual(1)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = self.first.forward(x)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.second.forward(&x)
    }
}
