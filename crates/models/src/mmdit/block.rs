//! The joint block (MM-DiT): attention over the image and text tokens together, then a feed-forward layer for
//! each stream.

use candle_core::Tensor;
use sd_ops::{
    Heads, Linear, Precision, attention, joint_attention, linear_gated_residual, modulated_layer_norm,
};
use sd_weights::Weights;

use super::block_kind::{BlockKind, ContextStream};
use super::modulation::{Affine, BlockModulation, StreamModulation, TextModulation};
use super::stream::{HeadProjections, ProjectionNames};
use super::{Config, NORM_EPSILON};
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::layers;

/// The tokens between two blocks, `[batch, tokens, width]` of either stream.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) image: Tensor,
    /// None after the last block that reads it.
    pub(super) text: Option<Tensor>,
}

/// A joint block.
#[derive(Debug)]
pub(super) struct JointBlock {
    image: ImageLayers,
    text: TextLayers,
}

/// The layers of the image stream.
#[derive(Debug)]
struct ImageLayers {
    heads: HeadProjections,
    output: Linear,
    second: Option<SelfAttention>,
    feed_forward: FeedForward,
}

/// The second self-attention of the image stream.
#[derive(Debug)]
struct SelfAttention {
    heads: HeadProjections,
    output: Linear,
}

/// The layers of the text stream.
#[derive(Debug)]
enum TextLayers {
    Full {
        heads: HeadProjections,
        output: Linear,
        feed_forward: FeedForward,
    },
    KeysValuesOnly {
        heads: HeadProjections,
    },
    None,
}

impl JointBlock {
    pub(super) fn new(kind: BlockKind, weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let width = config.width();
        let attention = weights.scope("attn");
        let text_heads = || HeadProjections::new(&attention, config, ProjectionNames::TEXT);
        let text = match kind.context {
            ContextStream::Full => TextLayers::Full {
                heads: text_heads()?,
                output: layers::linear(&attention.scope("to_add_out"), width, width)?,
                feed_forward: FeedForward::new(
                    &weights.scope("ff_context"),
                    width,
                    HiddenActivation::GeluTanh,
                )?,
            },
            ContextStream::KeysValuesOnly => TextLayers::KeysValuesOnly { heads: text_heads()? },
            ContextStream::None => TextLayers::None,
        };
        let second = if kind.dual_attention {
            let weights = weights.scope("attn2");
            Some(SelfAttention {
                heads: HeadProjections::new(&weights, config, ProjectionNames::IMAGE)?,
                output: layers::linear(&weights.scope("to_out.0"), width, width)?,
            })
        } else {
            None
        };
        let image = ImageLayers {
            heads: HeadProjections::new(&attention, config, ProjectionNames::IMAGE)?,
            output: layers::linear(&attention.scope("to_out.0"), width, width)?,
            second,
            feed_forward: FeedForward::new(&weights.scope("ff"), width, HiddenActivation::GeluTanh)?,
        };
        Ok(Self { image, text })
    }

    /// The tokens of both streams after this block.
    ///
    /// Every tensor is dropped after its last use: `footprint.rs` counts those that are alive at the same
    /// time.
    pub(super) fn forward(
        &self,
        Tokens { image, text }: Tokens,
        modulation: &BlockModulation,
    ) -> candle_core::Result<Tokens> {
        let of_image = &modulation.image;
        let (text_heads, of_text) = match (&self.text, &text, &modulation.text) {
            (TextLayers::Full { heads, .. }, Some(text), TextModulation::Full(of_text)) => (
                Some(heads.forward(&normed(text, &of_text.attention.input)?)?),
                Some(of_text),
            ),
            (TextLayers::KeysValuesOnly { heads }, Some(text), TextModulation::KeysValuesOnly(affine)) => {
                (Some(heads.forward(&normed(text, affine)?)?), None)
            }
            (TextLayers::None, None, TextModulation::None) => (None, None),
            _ => unreachable!("tokens and modulation of another kind of block. This is a bug."),
        };
        let image_heads = self
            .image
            .heads
            .forward(&normed(&image, &of_image.attention.input)?)?;
        let precision = self.image.output.precision();
        let (of_patches, of_words) = match text_heads {
            Some(text_heads) => {
                let scale = scale_of(&image_heads)?;
                let (of_patches, of_words) = joint_attention(image_heads, text_heads, scale, precision)?;
                (of_patches, Some(of_words))
            }
            None => (attend(image_heads, precision)?, None),
        };

        let gate = &of_image.attention.gate;
        let mut after = linear_gated_residual(&image, gate, &of_patches, &self.image.output)?;
        drop(of_patches);
        if let (Some(second), Some(gated)) = (&self.image.second, &of_image.second_attention) {
            let heads = second.heads.forward(&normed(&image, &gated.input)?)?;
            after = linear_gated_residual(&after, &gated.gate, &attend(heads, precision)?, &second.output)?;
        }
        drop(image);
        let image = feed_forward(after, &self.image.feed_forward, of_image)?;

        let text = match (&self.text, text, of_words, of_text) {
            (
                TextLayers::Full {
                    output,
                    feed_forward: layer,
                    ..
                },
                Some(text),
                Some(of_words),
                Some(of_text),
            ) => {
                let after = linear_gated_residual(&text, &of_text.attention.gate, &of_words, output)?;
                drop(of_words);
                Some(feed_forward(after, layer, of_text)?)
            }
            _ => None,
        };
        Ok(Tokens { image, text })
    }
}

fn normed(tokens: &Tensor, affine: &Affine) -> candle_core::Result<Tensor> {
    modulated_layer_norm(tokens, &affine.shift, &affine.scale, NORM_EPSILON)
}

fn feed_forward(
    tokens: Tensor,
    layer: &FeedForward,
    modulation: &StreamModulation,
) -> candle_core::Result<Tensor> {
    let gated = &modulation.feed_forward;
    layer.add_to(&tokens, Some(&gated.gate), &normed(&tokens, &gated.input)?)
}

/// Self-attention of one stream, with the heads concatenated: `[batch, tokens, width]`.
fn attend(heads: Heads, precision: Precision) -> candle_core::Result<Tensor> {
    let scale = scale_of(&heads)?;
    let mixed = attention(
        &heads.queries.transpose(1, 2)?,
        &heads.keys.transpose(1, 2)?,
        &heads.values.transpose(1, 2)?,
        None,
        scale,
        precision,
    )?;
    mixed.transpose(1, 2)?.flatten_from(2)
}

/// The factor of the attention scores, `1 / sqrt(head size)`.
fn scale_of(heads: &Heads) -> candle_core::Result<f64> {
    Ok(1.0 / (heads.queries.dim(3)? as f64).sqrt())
}
