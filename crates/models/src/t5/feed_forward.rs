//! The second half of a layer: an RMS norm and a gated feed-forward layer.

use candle_core::Tensor;
use sd_ops::{Linear, RmsNorm, linear_gated_gelu_tanh, linear_residual, rms_norm};
use sd_weights::{Result, Weights};

use super::Config;
use crate::layers;

#[derive(Debug)]
pub(super) struct FeedForward {
    norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub(super) fn new(weights: &Weights, config: &Config) -> Result<Self> {
        let (width, gated) = (config.d_model, config.d_ff);
        let dense = weights.scope("DenseReluDense");
        Ok(Self {
            norm: layers::rms_norm(&weights.scope("layer_norm"), width, config.layer_norm_epsilon)?,
            gate: layers::linear_without_bias(&dense.scope("wi_0"), width, gated)?,
            up: layers::linear_without_bias(&dense.scope("wi_1"), width, gated)?,
            down: layers::linear_without_bias(&dense.scope("wo"), gated, width)?,
        })
    }

    /// `x`, `[texts, tokens, features]`, plus the result of the layer.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let normed = rms_norm(x, &self.norm)?;
        let gated = linear_gated_gelu_tanh(&normed, &self.gate, &self.up)?;
        linear_residual(x, &gated, &self.down)
    }
}
