//! A layer of a CLIP text encoder: self-attention and a feed-forward layer, each after a layer norm.

use candle_core::Tensor;
use sd_ops::{
    LayerNorm, Linear, attention, layer_norm, linear, linear_gelu, linear_quick_gelu, linear_residual,
};
use sd_weights::{Result, Weights};

use super::{Activation, Config};
use crate::layers;

#[derive(Debug)]
pub(super) struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    pub(super) fn new(weights: &Weights, config: &Config) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let attention = weights.scope("self_attn");
        let projection = |name: &str| layers::linear(&attention.scope(name), width, width);
        Ok(Self {
            norm1: layers::layer_norm(&weights.scope("layer_norm1"), width, config.layer_norm_eps)?,
            query: projection("q_proj")?,
            key: projection("k_proj")?,
            value: projection("v_proj")?,
            output: projection("out_proj")?,
            norm2: layers::layer_norm(&weights.scope("layer_norm2"), width, config.layer_norm_eps)?,
            up: layers::linear(&weights.scope("mlp.fc1"), width, inner)?,
            down: layers::linear(&weights.scope("mlp.fc2"), inner, width)?,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// `x`, `[texts, tokens, features]`, after this layer; `mask` is added to the scores.
    pub(super) fn forward(&self, x: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let mixed = self.attend(&layer_norm(x, &self.norm1)?, mask)?;
        let x = linear_residual(x, &mixed, &self.output)?;
        drop(mixed);
        let inner = self.inside(&layer_norm(&x, &self.norm2)?)?;
        linear_residual(&x, &inner, &self.down)
    }

    /// The hidden features of the feed-forward layer.
    fn inside(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.activation {
            Activation::QuickGelu => linear_quick_gelu(x, &self.up),
            Activation::Gelu => linear_gelu(x, &self.up),
        }
    }

    /// Self-attention of the tokens of `x`, before the output projection.
    fn attend(&self, x: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
        let (texts, tokens, width) = x.dims3()?;
        let size = width / self.heads;
        let split = |projection: &Linear| {
            linear(x, projection)?
                .reshape((texts, tokens, self.heads, size))?
                .transpose(1, 2)
        };
        let scale = 1.0 / (size as f64).sqrt();
        let mixed = attention(
            &split(&self.query)?,
            &split(&self.key)?,
            &split(&self.value)?,
            Some(mask),
            scale,
            self.query.precision(),
        )?;
        mixed.transpose(1, 2)?.reshape((texts, tokens, width))
    }
}
