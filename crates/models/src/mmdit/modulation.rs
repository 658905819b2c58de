//! Modulations: shifts, scales and gates that a step's conditioning gives to a block.
//!
//! Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023 (adaLN-Zero). They depend on the timestep
//! and the pooled text alone, not on the picture.

use candle_core::Tensor;
use sd_ops::{Linear, linear};
use sd_weights::{Result, Weights};

use crate::layers;

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

/// Splits the projected conditioning, `[batch, parts * width]`, into its parts.
fn split(projection: &Linear, conditioning: &Tensor, parts: usize) -> candle_core::Result<Vec<Tensor>> {
    let width = projection.out_features() / parts;
    let all = linear(conditioning, projection)?;
    (0..parts)
        .map(|part| all.narrow(1, part * width, width)?.contiguous())
        .collect()
}

/// The projection from conditioning to a stream's modulation: six parts, or nine with a second attention.
#[derive(Debug)]
pub(super) struct StreamProjection {
    projection: Linear,
    parts: usize,
}

impl StreamProjection {
    pub(super) fn new(weights: &Weights, width: usize, has_second_attention: bool) -> Result<Self> {
        let parts = if has_second_attention { 9 } else { 6 };
        Ok(Self {
            projection: layers::linear(&weights.scope("linear"), width, parts * width)?,
            parts,
        })
    }

    pub(super) fn modulation(&self, conditioning: &Tensor) -> candle_core::Result<StreamModulation> {
        let mut parts = split(&self.projection, conditioning, self.parts)?.into_iter();
        let mut gated = || {
            let (shift, scale, gate) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Gated {
                input: Affine { shift, scale },
                gate,
            })
        };
        let (attention, feed_forward) = (gated(), gated());
        let (Some(attention), Some(feed_forward)) = (attention, feed_forward) else {
            unreachable!("a modulation has at least six parts. This is a bug.")
        };
        Ok(StreamModulation {
            attention,
            feed_forward,
            second_attention: gated(),
        })
    }
}

/// The projection from conditioning to a shift and a scale alone, for a norm with nothing after it to gate. Here
/// the scale comes first (diffusers' `AdaLayerNormContinuous`).
#[derive(Debug)]
pub(super) struct AffineProjection(Linear);

impl AffineProjection {
    pub(super) fn new(weights: &Weights, width: usize) -> Result<Self> {
        Ok(Self(layers::linear(&weights.scope("linear"), width, 2 * width)?))
    }

    pub(super) fn modulation(&self, conditioning: &Tensor) -> candle_core::Result<Affine> {
        let mut parts = split(&self.0, conditioning, 2)?;
        let shift = parts.remove(1);
        Ok(Affine {
            scale: parts.remove(0),
            shift,
        })
    }
}
