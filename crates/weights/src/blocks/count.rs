//! Counts the blocks that forward passes go over, for whoever shows the progress of a run.

use std::sync::atomic::{AtomicU64, Ordering};

static BEGUN: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

/// Blocks of the forward passes of this process, counted since it started. Any thread may read them while a pass
/// runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockCount {
    /// Blocks of the passes that have begun.
    pub begun: u64,
    /// Those of them that have had their turn.
    pub done: u64,
}

impl BlockCount {
    /// The blocks so far.
    pub fn now() -> Self {
        // In this order, so that no more are done than begun.
        let done = DONE.load(Ordering::Relaxed);
        let begun = BEGUN.load(Ordering::Relaxed).max(done);
        Self { begun, done }
    }

    /// The blocks since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let done = self.done.saturating_sub(earlier.done);
        let begun = self.begun.saturating_sub(earlier.begun).max(done);
        Self { begun, done }
    }
}

/// Counts the blocks of a pass that begins.
pub(super) fn begin(blocks: usize) {
    BEGUN.fetch_add(blocks as u64, Ordering::Relaxed);
}

/// Counts a block whose turn is over.
pub(super) fn finish() {
    DONE.fetch_add(1, Ordering::Relaxed);
}

/// Takes back blocks of a pass that ends before their turns.
pub(super) fn leave_out(blocks: usize) {
    BEGUN.fetch_sub(blocks as u64, Ordering::Relaxed);
}
