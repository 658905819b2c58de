//! The patch embedding: from latents to tokens, one for each patch.

use candle_core::Tensor;
use sd_ops::{Linear, add_positions, linear};
use sd_weights::Weights;

use super::Config;
use crate::Result;

/// The projection from patches to tokens.
#[derive(Debug)]
pub(super) struct PatchEmbedding {
    projection: Linear,
    side: usize,
}

impl PatchEmbedding {
    /// The embedding of latents with `channels` channels. `weights` is the scope of the projection.
    pub(super) fn new(weights: &Weights, channels: usize, config: &Config) -> sd_weights::Result<Self> {
        // A convolution whose stride is its kernel size is a projection of patches.
        let (width, side) = (config.width(), config.patch_size);
        let kernel = weights.tensor("weight", &[width, channels, side, side])?;
        let kernel = kernel.reshape((width, channels * side * side))?;
        Ok(Self {
            projection: Linear::new(kernel, Some(weights.tensor("bias", &[width])?))?,
            side,
        })
    }

    /// Latents as tokens, plus `positions` if given: `[batch, patches, width]`.
    pub(super) fn forward(&self, latents: &Tensor, positions: Option<&Tensor>) -> Result<Tensor> {
        let (batch, channels, height, width) = latents.dims4()?;
        let side = self.side;
        let (rows, columns) = (height / side, width / side);
        let patches = latents
            .reshape((batch, channels, rows, side, columns, side))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((batch, rows * columns, channels * side * side))?;
        let tokens = linear(&patches, &self.projection)?;
        let Some(positions) = positions else {
            return Ok(tokens);
        };
        Ok(add_positions(&tokens, positions)?)
    }
}
