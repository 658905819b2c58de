//! What steers the transformer and is the same for all pictures of a run, computed once for all steps.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::modulation::{Affine, BlockModulation, Projected, affine_of_step};

/// Texts as tokens, the modulations of every block for every step, and the positions of a picture's patches.
///
/// Cloning it, or taking some of its texts, copies nothing.
#[derive(Debug, Clone)]
pub struct Conditions {
    all: Arc<All>,
    texts: Range<usize>,
}

#[derive(Debug)]
pub(super) struct All {
    /// `[texts, tokens, width]`
    pub(super) text: Tensor,
    /// Of every block, a row for every text of every step.
    pub(super) blocks: Vec<Projected>,
    /// Of the head.
    pub(super) head: Tensor,
    /// `[patches, width]` in 32 bits.
    pub(super) positions: Tensor,
    /// Rows and columns of the latents.
    pub(super) latents: (usize, usize),
    pub(super) steps: usize,
    pub(super) width: usize,
}

impl Conditions {
    pub(super) fn new(all: All) -> candle_core::Result<Self> {
        let texts = 0..all.text.dim(0)?;
        Ok(Self {
            all: Arc::new(all),
            texts,
        })
    }

    /// How many texts there are: the batch that latents must come in.
    pub fn texts(&self) -> usize {
        self.texts.len()
    }

    /// How many steps were prepared.
    pub fn steps(&self) -> usize {
        self.all.steps
    }

    /// Rows and columns of the latents that these were made for.
    pub fn latents(&self) -> (usize, usize) {
        self.all.latents
    }

    /// The text at `index` alone.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        assert!(index < self.texts(), "there is no text {index}");
        let first = self.texts.start + index;
        Self {
            all: self.all.clone(),
            texts: first..first + 1,
        }
    }

    pub(super) fn text(&self) -> candle_core::Result<Tensor> {
        self.all.text.narrow(0, self.texts.start, self.texts())
    }

    pub(super) fn positions(&self) -> &Tensor {
        &self.all.positions
    }

    pub(super) fn of_block(&self, block: usize, step: usize) -> candle_core::Result<BlockModulation> {
        self.all.blocks[block].of_step(self.first_row(step), self.texts(), self.all.width)
    }

    pub(super) fn of_head(&self, step: usize) -> candle_core::Result<Affine> {
        affine_of_step(&self.all.head, self.first_row(step), self.texts(), self.all.width)
    }

    /// Rows go by steps, and within a step by texts.
    fn first_row(&self, step: usize) -> usize {
        step * self.all.text.dims()[0] + self.texts.start
    }
}
