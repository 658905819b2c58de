//! Images that are denoised together.

use crate::stage::Sample;

/// A batch: images of a group that share forward passes of the network.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) images: Vec<usize>,
    pub(super) samples: Vec<Sample>,
}

impl Batch {
    /// Finished evaluations, the same for all images of the batch.
    pub(super) fn evaluations(&self) -> usize {
        self.samples
            .first()
            .map_or(0, |sample| sample.progress.evaluations)
    }
}
