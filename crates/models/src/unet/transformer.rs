//! The transformers between residual blocks: self-attention over the pixels of a feature map, and cross
//! attention to the text.

use candle_core::{Result, Tensor};
use sd_ops::{
    GroupNorm, LayerNorm, Linear, attention, group_norm, image_of_tokens, layer_norm, linear,
    linear_residual, sum, tokens_of_image,
};
use sd_weights::Weights;

use super::config::Config;
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::layers;

/// The epsilon of the group norm before a transformer, which no setting changes.
const ENTRY_EPSILON: f64 = 1e-6;
/// The epsilon of the layer norms.
const LAYER_EPSILON: f64 = 1e-5;

/// A projection at each pixel, whose weights have the shape of the layer that the configuration says.
fn projection(weights: &Weights, config: &Config, channels: usize) -> sd_weights::Result<Linear> {
    if config.use_linear_projection == Some(true) {
        layers::linear(weights, channels, channels)
    } else {
        layers::pointwise_conv(weights, channels, channels)
    }
}

/// From a feature map to tokens.
#[derive(Debug)]
pub(crate) struct TransformerEntry {
    norm: GroupNorm,
    projection: Linear,
}

impl TransformerEntry {
    pub(crate) fn new(weights: &Weights, config: &Config, channels: usize) -> sd_weights::Result<Self> {
        let norm = weights.scope("norm");
        Ok(Self {
            norm: layers::group_norm(&norm, config.norm_num_groups, channels, ENTRY_EPSILON)?,
            projection: projection(&weights.scope("proj_in"), config, channels)?,
        })
    }

    /// The tokens of `feature_map`, a feature map, row by row: `[texts, height * width, channels]`.
    pub(crate) fn forward(&self, feature_map: &Tensor) -> Result<Tensor> {
        let normed = group_norm(feature_map, &self.norm)?;
        let tokens = tokens_of_image(&normed)?;
        drop(normed);
        linear(&tokens, &self.projection)
    }
}

/// From tokens back to a feature map.
#[derive(Debug)]
pub(crate) struct TransformerExit {
    projection: Linear,
}

impl TransformerExit {
    pub(crate) fn new(weights: &Weights, config: &Config, channels: usize) -> sd_weights::Result<Self> {
        Ok(Self {
            projection: projection(&weights.scope("proj_out"), config, channels)?,
        })
    }

    /// The feature map `feature_map` plus the projected tokens.
    pub(crate) fn forward(&self, tokens: Tensor, feature_map: Tensor) -> Result<Tensor> {
        let projected = linear(&tokens, &self.projection)?;
        drop(tokens);
        let (_, _, height, width) = feature_map.dims4()?;
        let change = image_of_tokens(&projected, height, width)?;
        drop(projected);
        sum(&feature_map, &change)
    }
}

/// A transformer layer: self-attention, cross attention to the text, and a feed-forward layer, each after a
/// layer norm.
#[derive(Debug)]
pub(crate) struct TransformerLayer {
    norm1: LayerNorm,
    self_attention: Attention,
    norm2: LayerNorm,
    cross_attention: Attention,
    norm3: LayerNorm,
    feed_forward: FeedForward,
}

impl TransformerLayer {
    /// A layer of `channels` features in `heads` attention heads, for text tokens of `context` features.
    pub(crate) fn new(
        weights: &Weights,
        channels: usize,
        heads: usize,
        context: usize,
    ) -> sd_weights::Result<Self> {
        let norm = |name: &str| layers::layer_norm(&weights.scope(name), channels, LAYER_EPSILON);
        Ok(Self {
            norm1: norm("norm1")?,
            self_attention: Attention::new(&weights.scope("attn1"), channels, heads, channels)?,
            norm2: norm("norm2")?,
            cross_attention: Attention::new(&weights.scope("attn2"), channels, heads, context)?,
            norm3: norm("norm3")?,
            feed_forward: FeedForward::new(&weights.scope("ff"), channels, HiddenActivation::Geglu)?,
        })
    }

    /// The tokens of a feature map, `[texts, height * width, channels]`, after this layer; `text` is
    /// `[texts, tokens, features]`.
    pub(crate) fn forward(&self, tokens: Tensor, text: &Tensor) -> Result<Tensor> {
        let mut tokens = tokens;
        let normed = layer_norm(&tokens, &self.norm1)?;
        tokens = self.self_attention.add_to(&tokens, normed, None)?;
        let normed = layer_norm(&tokens, &self.norm2)?;
        tokens = self.cross_attention.add_to(&tokens, normed, Some(text))?;
        let normed = layer_norm(&tokens, &self.norm3)?;
        self.feed_forward.add_to(&tokens, None, &normed)
    }
}

/// Multi-head attention: self-attention, or cross attention to other tokens.
#[doc(alias = "cross attention")]
#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

impl Attention {
    /// Attention from tokens of `width` features to tokens of `others` features.
    fn new(weights: &Weights, width: usize, heads: usize, others: usize) -> sd_weights::Result<Self> {
        let projection =
            |name: &str, inputs: usize| layers::linear_without_bias(&weights.scope(name), inputs, width);
        Ok(Self {
            query: projection("to_q", width)?,
            key: projection("to_k", others)?,
            value: projection("to_v", others)?,
            output: layers::linear(&weights.scope("to_out.0"), width, width)?,
            heads,
        })
    }

    /// `residual` plus the attention of `tokens` to `others`, or to themselves.
    fn add_to(&self, residual: &Tensor, tokens: Tensor, others: Option<&Tensor>) -> Result<Tensor> {
        let (batch, count, width) = tokens.dims3()?;
        let size = width / self.heads;
        let split = |x: &Tensor, projection: &Linear| {
            linear(x, projection)?
                .reshape((batch, x.dim(1)?, self.heads, size))?
                .transpose(1, 2)
        };
        let query = split(&tokens, &self.query)?;
        let others = others.unwrap_or(&tokens);
        let (key, value) = (split(others, &self.key)?, split(others, &self.value)?);
        drop(tokens);
        let scale = 1.0 / (size as f64).sqrt();
        let mixed = attention(&query, &key, &value, None, scale, self.query.precision())?;
        drop((query, key, value));
        let mixed = mixed.transpose(1, 2)?.reshape((batch, count, width))?;
        linear_residual(residual, &mixed, &self.output)
    }
}
