//! The middle block of encoder and decoder.

use candle_core::{Result, Tensor};
use sd_ops::{GroupNorm, Linear, attention, group_norm, image_of_tokens, linear, sum, tokens_of_image};
use sd_weights::Weights;

use super::banded::BandedTensor;
use super::config::{Config, NORM_EPSILON};
use super::residual::ResidualBlock;
use crate::layers;

/// Single-head self-attention over all pixels of a feature map.
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
    fn new(weights: &Weights, groups: usize, channels: usize) -> sd_weights::Result<Self> {
        // Early releases of Stable Diffusion stored these as convolutions of single pixels.
        let projection = |name: &str| layers::pointwise(&weights.scope(name), channels, channels);
        Ok(Self {
            norm: layers::group_norm(&weights.scope("group_norm"), groups, channels, NORM_EPSILON)?,
            query: projection("to_q")?,
            key: projection("to_k")?,
            value: projection("to_v")?,
            output: projection("to_out.0")?,
            channels,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let pixels = height * width;
        let tokens = tokens_of_image(&group_norm(&x, &self.norm)?)?;
        let head = |projection: &Linear| linear(&tokens, projection)?.reshape((batch, 1, pixels, channels));
        let (query, key, value) = (head(&self.query)?, head(&self.key)?, head(&self.value)?);
        drop(tokens);
        let scale = 1.0 / (self.channels as f64).sqrt();
        let mixed = attention(&query, &key, &value, None, scale, self.output.precision())?;
        drop((query, key, value));
        let mixed = linear(&mixed.reshape((batch, pixels, channels))?, &self.output)?;
        let mixed = image_of_tokens(&mixed, height, width)?;
        sum(&x, &mixed)
    }
}

/// The middle block: a residual block, self-attention, and another residual block.
#[derive(Debug)]
pub(super) struct MiddleBlock {
    first: ResidualBlock,
    attention: Option<SpatialAttention>,
    second: ResidualBlock,
}

impl MiddleBlock {
    pub(super) fn new(weights: &Weights, config: &Config, channels: usize) -> sd_weights::Result<Self> {
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

    pub(super) fn forward(&self, x: BandedTensor) -> Result<BandedTensor> {
        let mut x = self.first.forward(x)?;
        if let Some(attention) = &self.attention {
            let banding = x.banding();
            x = BandedTensor::split(attention.forward(x.joined()?)?, attention.channels, banding)?;
        }
        self.second.forward(x)
    }
}
