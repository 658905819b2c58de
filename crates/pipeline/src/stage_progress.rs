//! [`StageProgress`]: the work of a stage, counted while the stage runs.

use sd_memory::Bytes;
use sd_weights::{BlockCount, bytes_read};

/// The work of a stage since it began. Any thread may ask for it while the stage runs: the stage itself only
/// increases counters that the process has anyway.
#[derive(Debug, Clone, Copy)]
pub struct StageProgress {
    blocks_before: BlockCount,
    read_before: u64,
    expected: Option<Bytes>,
}

impl StageProgress {
    /// The progress of a stage that begins now and reads about `expected` bytes of weights, if that is known.
    pub(crate) fn begin(expected: Option<Bytes>) -> Self {
        Self {
            blocks_before: BlockCount::now(),
            read_before: bytes_read(),
            expected,
        }
    }

    /// Blocks of the networks of the stage: those of the forward passes that have begun, and those that are done.
    pub fn blocks(&self) -> BlockCount {
        BlockCount::now().since(self.blocks_before)
    }

    /// Bytes of weights that were read.
    pub fn bytes_read(&self) -> Bytes {
        Bytes(bytes_read().saturating_sub(self.read_before))
    }

    /// Bytes of weights that the stage reads in all, if that is known. Weights that are cached are not read.
    pub fn expected_bytes(&self) -> Option<Bytes> {
        self.expected
    }
}
