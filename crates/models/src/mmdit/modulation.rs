//! Modulations: shifts, scales and gates that a step's conditioning gives to a block.
//!
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023 (adaLN-Zero). They depend on the timestep
//! and the pooled text alone, not on the picture: those of all steps are computed in one pass, and their weights, a
//! third of the network, are never held again.

use candle_core::Tensor;
use sd_ops::{Linear, linear};
use sd_weights::{Result, Weights};

use super::block::{BlockKind, TextRole};
use crate::layers;

/// Parts of a stream's modulation: shift, scale and gate of the attention and of the feed-forward layer.
const STREAM_PARTS: usize = 6;
/// The same with those of a second attention.
const STREAM_PARTS_WITH_SECOND: usize = 9;
/// Scale and shift alone.
const AFFINE_PARTS: usize = 2;

/// How a norm's result is shifted and scaled, `[batch, width]` both.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) shift: Tensor,
    pub(super) scale: Tensor,
}

/// The modulation around one part of a block: of its input, and the gate of its output.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    pub(super) input: Affine,
    pub(super) gate: Tensor,
}

/// The modulation of a stream through one block.
#[derive(Debug, Clone)]
pub(super) struct StreamModulation {
    pub(super) attention: Gated,
    pub(super) feed_forward: Gated,
    /// Of the second attention, where there is one.
    pub(super) second_attention: Option<Gated>,
}

/// The modulations of both streams through one block, for one step.
#[derive(Debug)]
pub(super) struct BlockModulation {
    pub(super) image: StreamModulation,
    pub(super) text: TextModulation,
}

/// That of the text, by what becomes of it.
#[derive(Debug)]
pub(super) enum TextModulation {
    Goes(StreamModulation),
    Ends(Affine),
    IsAbsent,
}

/// The projections of a block from conditioning to its modulations. They are needed once a run.
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

    /// Those for each row of `conditioning`, `[rows, width]`.
    pub(super) fn project(&self, conditioning: &Tensor) -> candle_core::Result<Projected> {
        Ok(Projected {
            image: linear(conditioning, &self.image)?,
            text: self
                .text
                .as_ref()
                .map(|text| linear(conditioning, text))
                .transpose()?,
        })
    }
}

impl BlockKind {
    /// How many parts the picture's modulation has.
    pub(super) fn image_parts(self) -> usize {
        if self.attends_twice {
            STREAM_PARTS_WITH_SECOND
        } else {
            STREAM_PARTS
        }
    }

    /// How many the text's has.
    pub(super) fn text_parts(self) -> usize {
        match self.text {
            TextRole::Goes => STREAM_PARTS,
            TextRole::Ends => AFFINE_PARTS,
            TextRole::IsAbsent => 0,
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
    /// Those of `count` rows from `first` on: of one step.
    pub(super) fn of_step(
        &self,
        first: usize,
        count: usize,
        width: usize,
    ) -> candle_core::Result<BlockModulation> {
        let text = match &self.text {
            Some(text) => match split(text, first, count, width)? {
                parts if parts.len() == AFFINE_PARTS => TextModulation::Ends(affine(parts)),
                parts => TextModulation::Goes(stream(parts)),
            },
            None => TextModulation::IsAbsent,
        };
        Ok(BlockModulation {
            image: stream(split(&self.image, first, count, width)?),
            text,
        })
    }
}

/// The projection of the head from conditioning to a scale and a shift.
#[derive(Debug)]
pub(super) struct AffineProjection(Linear);

impl AffineProjection {
    pub(super) fn new(weights: &Weights, width: usize) -> Result<Self> {
        let weights = weights.scope("linear");
        Ok(Self(layers::linear(&weights, width, AFFINE_PARTS * width)?))
    }

    /// Those for each row of `conditioning`, `[rows, 2 * width]`.
    pub(super) fn project(&self, conditioning: &Tensor) -> candle_core::Result<Tensor> {
        linear(conditioning, &self.0)
    }
}

/// The affine of one step, of all that [`AffineProjection::project`] gave.
pub(super) fn affine_of_step(
    projected: &Tensor,
    first: usize,
    count: usize,
    width: usize,
) -> candle_core::Result<Affine> {
    Ok(affine(split(projected, first, count, width)?))
}

/// `count` rows from `first` on, cut into parts of `width`.
fn split(projected: &Tensor, first: usize, count: usize, width: usize) -> candle_core::Result<Vec<Tensor>> {
    let rows = projected.narrow(0, first, count)?;
    (0..projected.dim(1)? / width)
        .map(|part| rows.narrow(1, part * width, width)?.contiguous())
        .collect()
}

/// A norm with nothing after it to gate has its scale first (diffusers' `AdaLayerNormContinuous`).
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
