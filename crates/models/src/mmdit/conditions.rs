//! What steers the transformer and is the same for all pictures of a run, computed once for all steps.

use candle_core::Tensor;

use super::modulation::{Affine, affine_of_step};
use super::steering::Steering;

/// Texts as tokens, the modulations of every block for every step, and the positions of a picture's patches.
///
/// Cloning it, or taking some of its texts, copies nothing.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub(super) steering: Steering,
    /// Of the head, a row for every text of every step.
    pub(super) head: Tensor,
    /// `[patches, width]` in 32 bits.
    pub(super) positions: Tensor,
}

impl Conditions {
    /// How many texts there are: the batch that latents must come in.
    pub fn texts(&self) -> usize {
        self.steering.texts()
    }

    /// How many steps were prepared.
    pub fn steps(&self) -> usize {
        self.steering.steps()
    }

    /// Rows and columns of the latents that these were made for.
    pub fn latents(&self) -> (usize, usize) {
        self.steering.latents()
    }

    /// The text at `index` alone.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            steering: self.steering.only(index),
            ..self.clone()
        }
    }

    pub(super) fn of_head(&self, step: usize) -> candle_core::Result<Affine> {
        let width = self.positions.dim(1)?;
        affine_of_step(&self.head, self.steering.first_row(step), self.texts(), width)
    }
}
