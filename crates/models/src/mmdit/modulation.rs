//! Modulations (adaLN-Zero): the shifts, scales and gates of a block's layers at one step.
//!
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023. Modulations depend only on the
//! timestep and the pooled text embedding, not on the latents. Those of all steps are computed in one pass,
//! after which their weights, a third of the network, are not needed any more.

use candle_core::Tensor;
use sd_ops::{Linear, linear};
use sd_weights::{Result, Weights};

use super::block_kind::{BlockKind, ContextStream};
use crate::layers;

/// Vectors of a stream's modulation: shift, scale and gate for the attention and for the feed-forward layer.
const STREAM_PARTS: usize = 6;
/// The same with those of the second self-attention.
const STREAM_PARTS_WITH_SECOND: usize = 9;
/// Scale and shift only.
const AFFINE_PARTS: usize = 2;

/// The shift and the scale after a layer norm, `[batch, width]` both.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) shift: Tensor,
    pub(super) scale: Tensor,
}

/// The modulation of one layer of a block: of its input, and the gate of its output.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    pub(super) input: Affine,
    pub(super) gate: Tensor,
}

/// The modulation of one stream in one block.
#[derive(Debug, Clone)]
pub(super) struct StreamModulation {
    pub(super) attention: Gated,
    pub(super) feed_forward: Gated,
    /// Of the second self-attention, if the block has one.
    pub(super) second_attention: Option<Gated>,
}

/// The modulations of both streams in one block, for one step.
#[derive(Debug)]
pub(super) struct BlockModulation {
    pub(super) image: StreamModulation,
    pub(super) text: TextModulation,
}

/// The modulation of the text stream.
#[derive(Debug)]
pub(super) enum TextModulation {
    Full(StreamModulation),
    KeysValuesOnly(Affine),
    None,
}

/// A block's projections from the time and text embedding to its modulations. They are used once per run.
#[derive(Debug)]
pub(super) struct BlockProjections {
    image: Linear,
    text: Option<Linear>,
}

impl BlockProjections {
    pub(super) fn new(kind: BlockKind, weights: &Weights, width: usize) -> Result<Self> {
        let of_text = kind.text_parts();
        let text = weights.scope("norm1_context.linear");
        Ok(Self {
            image: layers::linear(&weights.scope("norm1.linear"), width, kind.image_parts() * width)?,
            text: match of_text {
                0 => None,
                parts => Some(layers::linear(&text, width, parts * width)?),
            },
        })
    }

    /// The modulations for each row of `embedding`, `[rows, width]`.
    pub(super) fn project(&self, embedding: &Tensor) -> candle_core::Result<Projected> {
        Ok(Projected {
            image: linear(embedding, &self.image)?,
            text: self
                .text
                .as_ref()
                .map(|text| linear(embedding, text))
                .transpose()?,
        })
    }
}

impl BlockKind {
    /// The number of vectors in the image stream's modulation.
    pub(super) fn image_parts(self) -> usize {
        if self.dual_attention {
            STREAM_PARTS_WITH_SECOND
        } else {
            STREAM_PARTS
        }
    }

    /// The number of vectors in the text stream's modulation.
    pub(super) fn text_parts(self) -> usize {
        match self.context {
            ContextStream::Full => STREAM_PARTS,
            ContextStream::KeysValuesOnly => AFFINE_PARTS,
            ContextStream::None => 0,
        }
    }
}

/// The modulations of a block for all steps, `[steps * batch, parts * width]` both.
#[derive(Debug)]
pub(super) struct Projected {
    image: Tensor,
    text: Option<Tensor>,
}

impl Projected {
    /// The modulations of one step: of `count` rows from `first` on.
    pub(super) fn of_step(
        &self,
        first: usize,
        count: usize,
        width: usize,
    ) -> candle_core::Result<BlockModulation> {
        let text = match &self.text {
            Some(text) => match split(text, first, count, width)? {
                parts if parts.len() == AFFINE_PARTS => TextModulation::KeysValuesOnly(affine(parts)),
                parts => TextModulation::Full(stream(parts)),
            },
            None => TextModulation::None,
        };
        Ok(BlockModulation {
            image: stream(split(&self.image, first, count, width)?),
            text,
        })
    }
}

/// The output layer's projection from the time and text embedding to a scale and a shift.
#[derive(Debug)]
pub(super) struct AffineProjection(Linear);

impl AffineProjection {
    pub(super) fn new(weights: &Weights, width: usize) -> Result<Self> {
        let weights = weights.scope("linear");
        Ok(Self(layers::linear(&weights, width, AFFINE_PARTS * width)?))
    }

    /// Scale and shift for each row of `embedding`: `[rows, 2 * width]`.
    pub(super) fn project(&self, embedding: &Tensor) -> candle_core::Result<Tensor> {
        linear(embedding, &self.0)
    }
}

/// The affine of one step, from the result of [`AffineProjection::project`] for all steps.
pub(super) fn affine_of_step(
    projected: &Tensor,
    first: usize,
    count: usize,
    width: usize,
) -> candle_core::Result<Affine> {
    Ok(affine(split(projected, first, count, width)?))
}

/// `count` rows from `first` on, split into vectors of `width`.
fn split(projected: &Tensor, first: usize, count: usize, width: usize) -> candle_core::Result<Vec<Tensor>> {
    let rows = projected.narrow(0, first, count)?;
    (0..projected.dim(1)? / width)
        .map(|part| rows.narrow(1, part * width, width))
        .collect()
}

/// Without a gate the scale comes first (diffusers' `AdaLayerNormContinuous`).
fn affine(parts: Vec<Tensor>) -> Affine {
    let [scale, shift] = <[Tensor; AFFINE_PARTS]>::try_from(parts)
        .unwrap_or_else(|parts| unreachable!("an affine of {} parts. This is a bug.", parts.len()));
    Affine { shift, scale }
}

fn stream(parts: Vec<Tensor>) -> StreamModulation {
    let mut parts = parts.into_iter();
    let mut gated = || {
        let (shift, scale, gate) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Gated {
            input: Affine { shift, scale },
            gate,
        })
    };
    let (attention, feed_forward) = (gated(), gated());
    let (Some(attention), Some(feed_forward)) = (attention, feed_forward) else {
        unreachable!("a stream's modulation has at least six parts. This is a bug.")
    };
    StreamModulation {
        attention,
        feed_forward,
        second_attention: gated(),
    }
}
