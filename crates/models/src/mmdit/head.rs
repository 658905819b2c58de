//! The output layer: a modulated norm, a projection, and patches put back together to latents.

use candle_core::Tensor;
use sd_ops::{Linear, linear, modulated_layer_norm};
use sd_weights::Weights;

use super::modulation::Affine;
use super::{Config, NORM_EPSILON};
use crate::{Result, layers};

/// The transformer's output layer.
#[derive(Debug)]
pub(super) struct Head {
    projection: Linear,
    patch_size: usize,
    channels: usize,
}

impl Head {
    pub(super) fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let (width, channels) = (config.width(), config.predicted_channels());
        let values = config.patch_size * config.patch_size * channels;
        Ok(Self {
            projection: layers::linear(&weights.scope("proj_out"), width, values)?,
            patch_size: config.patch_size,
            channels,
        })
    }

    /// Unpatchifies tokens, `[batch, patches, width]`, to latents, `[batch, channels, height, width]`.
    pub(super) fn forward(
        &self,
        tokens: &Tensor,
        affine: &Affine,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        let normed = modulated_layer_norm(tokens, &affine.shift, &affine.scale, NORM_EPSILON)?;
        let side = self.patch_size;
        let (batch, rows, columns) = (tokens.dim(0)?, height / side, width / side);
        let patches = linear(&normed, &self.projection)?;
        Ok(patches
            .reshape((batch, rows, columns, side, side, self.channels))?
            .permute((0, 5, 1, 3, 2, 4))?
            .reshape((batch, self.channels, height, width))?)
    }
}
