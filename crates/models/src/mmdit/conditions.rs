//! The conditions of the transformer: computed once for all steps, and shared by all images of a run.

use candle_core::Tensor;

use super::conditioning::Conditioning;
use super::modulation::{Affine, affine_of_step};

/// The text tokens, the modulations of every block for every step, and the position embedding of the patches.
///
/// A clone, or a part of the batch, shares the same tensors.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub(super) conditioning: Conditioning,
    /// Scale and shift of the output layer, with a row for every text of every step.
    pub(super) head: Tensor,
    /// `[patches, width]` in 32 bits.
    pub(super) positions: Tensor,
}

impl Conditions {
    /// Number of texts: the batch size of the latents.
    pub fn texts(&self) -> usize {
        self.conditioning.texts()
    }

    /// Number of steps that were prepared.
    pub fn steps(&self) -> usize {
        self.conditioning.steps()
    }

    /// Rows and columns of the latents that the conditions are for.
    pub fn latents(&self) -> (usize, usize) {
        self.conditioning.latents()
    }

    /// The conditions of the text at `index` only.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            conditioning: self.conditioning.only(index),
            ..self.clone()
        }
    }

    pub(super) fn of_head(&self, step: usize) -> candle_core::Result<Affine> {
        let width = self.positions.dim(1)?;
        affine_of_step(&self.head, self.conditioning.first_row(step), self.texts(), width)
    }
}
