//! Images that go through the steps together.

use crate::stage::Sample;

/// Images that go through the steps together: those of a group of images that share passes over the network.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) images: Vec<usize>,
    pub(super) samples: Vec<Sample>,
}

impl Batch {
    /// Evaluations of the network that all of them have behind them.
    pub(super) fn evaluations(&self) -> usize {
        self.samples
            .first()
            .map_or(0, |sample| sample.progress.evaluations)
    }
}
