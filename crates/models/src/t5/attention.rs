//! The first half of a layer: an RMS norm and self-attention.

use candle_core::Tensor;
use sd_ops::{Linear, RmsNorm, attention, linear, linear_residual, rms_norm};
use sd_weights::{Result, Weights};

use super::Config;
use crate::layers;

#[derive(Debug)]
pub(super) struct SelfAttention {
    norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

impl SelfAttention {
    pub(super) fn new(weights: &Weights, config: &Config) -> Result<Self> {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let attention = weights.scope("SelfAttention");
        Ok(Self {
            norm: layers::rms_norm(&weights.scope("layer_norm"), width, config.layer_norm_epsilon)?,
            query: layers::linear_without_bias(&attention.scope("q"), width, inner)?,
            key: layers::linear_without_bias(&attention.scope("k"), width, inner)?,
            value: layers::linear_without_bias(&attention.scope("v"), width, inner)?,
            output: layers::linear_without_bias(&attention.scope("o"), inner, width)?,
            heads: config.num_heads,
        })
    }

    /// `x`, `[texts, tokens, features]`, plus its attention; `bias` is added to the scores.
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let mixed = self.attend(&rms_norm(x, &self.norm)?, bias)?;
        linear_residual(x, &mixed, &self.output)
    }

    /// Self-attention of the tokens of `x`, before the output projection.
    fn attend(&self, x: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let (texts, tokens, _) = x.dims3()?;
        let split = |projection: &Linear| {
            linear(x, projection)?
                .reshape((texts, tokens, self.heads, ()))?
                .transpose(1, 2)
        };
        // T5 does not scale its scores.
        let mixed = attention(
            &split(&self.query)?,
            &split(&self.key)?,
            &split(&self.value)?,
            Some(bias),
            1.0,
            self.query.precision(),
        )?;
        mixed.transpose(1, 2)?.reshape((texts, tokens, ()))
    }
}
