//! One layer of T5's encoder: attention and a gated feed-forward layer, each after a norm. Nothing has a bias.

use candle_core::Tensor;
use sd_ops::{Linear, RmsNorm, attention, linear, linear_gated_gelu_tanh, linear_residual, rms_norm};
use sd_weights::{Result, Weights};

use super::Config;
use crate::layers;

#[derive(Debug)]
pub(super) struct Layer {
    norm1: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl Layer {
    pub(super) fn new(weights: &Weights, config: &Config) -> Result<Self> {
        let (width, inner, gated) = (config.d_model, config.num_heads * config.d_kv, config.d_ff);
        let attention = weights.scope("layer.0.SelfAttention");
        let feed_forward = weights.scope("layer.1.DenseReluDense");
        let norm = |layer: usize| {
            let weights = weights.scope("layer").scope(layer).scope("layer_norm");
            layers::rms_norm(&weights, width, config.layer_norm_epsilon)
        };
        Ok(Self {
            norm1: norm(0)?,
            query: layers::linear_without_bias(&attention.scope("q"), width, inner)?,
            key: layers::linear_without_bias(&attention.scope("k"), width, inner)?,
            value: layers::linear_without_bias(&attention.scope("v"), width, inner)?,
            output: layers::linear_without_bias(&attention.scope("o"), inner, width)?,
            norm2: norm(1)?,
            gate: layers::linear_without_bias(&feed_forward.scope("wi_0"), width, gated)?,
            up: layers::linear_without_bias(&feed_forward.scope("wi_1"), width, gated)?,
            down: layers::linear_without_bias(&feed_forward.scope("wo"), gated, width)?,
            heads: config.num_heads,
        })
    }

    /// `x`, `[texts, tokens, features]`, after this layer; `bias` is added to the scores.
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let x = linear_residual(x, &self.attend(&rms_norm(x, &self.norm1)?, bias)?, &self.output)?;
        let normed = rms_norm(&x, &self.norm2)?;
        let gated = linear_gated_gelu_tanh(&normed, &self.gate, &self.up)?;
        linear_residual(&x, &gated, &self.down)
    }

    /// What the tokens of `x` find in each other, before it is projected.
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
