//! Where a block of a network is.

use std::sync::Arc;

/// A resident block and the bytes of its tensors.
#[derive(Debug)]
pub(super) struct ResidentBlock<B> {
    pub(super) block: Arc<B>,
    pub(super) bytes: u64,
}

/// Where one block of the list is.
#[derive(Debug)]
pub(super) enum BlockState<B> {
    /// The block is streamed.
    Streamed,
    /// The block becomes resident when it is first read.
    Unread,
    /// The block is in memory and stays there.
    Resident(ResidentBlock<B>),
}
