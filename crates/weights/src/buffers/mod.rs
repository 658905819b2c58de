//! Memory that the blocks of a network are read into, and that the next block reuses.

mod host;

use std::fmt;

use candle_core::{DType, Tensor};

pub(crate) use host::HostBuffers;

use crate::{Checkpoint, Result};

/// A pool of buffers, free or in use by the tensors that were read into them.
pub(crate) trait Buffers: fmt::Debug + Send + Sync {
    /// Reads the tensor `name` of `checkpoint` onto the device, as `held_type` or in the type of the file.
    /// The tensor's buffer stays in use until its block is reclaimed.
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor>;

    /// Reads the quantised rows of the tensor `name`, `[rows, bytes of a row]`. The buffer stays in use as for
    /// [`read`](Self::read).
    fn read_held_rows(&self, checkpoint: &Checkpoint, name: &str) -> Result<Tensor>;

    /// The buffers of all tensors that were read since the last call: those of one block.
    fn finish(&self) -> Result<BufferSet>;

    /// Takes back the buffers of a block. Nothing may read the block's tensors any more.
    fn reclaim(&self, buffer_set: BufferSet) -> Result<()>;

    /// Drops all free buffers.
    fn clear(&self);
}

/// The buffers of one block, as the tensors that were made of them.
#[derive(Debug)]
pub(crate) struct BufferSet {
    tensors: Vec<Tensor>,
    copies: Option<Box<dyn CopyFence>>,
}

/// The end of the asynchronous copies to a device that fill a set of buffers.
pub(crate) trait CopyFence: fmt::Debug + Send + Sync {
    /// Makes all kernels that are launched from now on wait for the copies.
    fn hold_back_kernels(&self) -> Result<()>;
}

impl BufferSet {
    /// Buffers whose tensors hold their values.
    pub(crate) fn ready(tensors: Vec<Tensor>) -> Self {
        Self {
            tensors,
            copies: None,
        }
    }

    /// Buffers that are still being filled by copies to the device.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "only a GPU copies beside its kernels")
    )]
    pub(crate) fn copying(tensors: Vec<Tensor>, copies: Box<dyn CopyFence>) -> Self {
        Self {
            tensors,
            copies: Some(copies),
        }
    }

    /// Makes sure that everything computed from now on sees the values. Before this, nothing may be done with
    /// the tensors, not even dropping them.
    pub(crate) fn join_copies(&mut self) -> Result<()> {
        self.copies
            .take()
            .map_or(Ok(()), |copies| copies.hold_back_kernels())
    }

    /// The bytes of all tensors.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        self.tensors.iter().map(bytes).sum()
    }

    pub(crate) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}
