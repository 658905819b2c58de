//! Memory that blocks are read into, used again for the next block when one is done with.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::host_buffers::HostBuffers;
use crate::{Checkpoint, Result, WeightOptions};

/// Memory that waits to be used again, and the tensors that the rest was made into.
pub(crate) trait Buffers: fmt::Debug + Send + Sync {
    /// Reads the tensor `name` of `checkpoint` as `held_type`, or in the file's own type, onto the device. What it lies in
    /// is lent for as long as its block is used.
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor>;

    /// Everything that was read since this was last asked: what one block lies in.
    fn finish(&self) -> Result<BufferSet>;

    /// Takes back what a block lay in that nobody may read any more.
    fn reclaim(&self, buffer_set: BufferSet) -> Result<()>;

    /// Gives all that is free back.
    fn clear(&self);
}

/// The memory that blocks are read into ahead of their turn, for the device of `options`.
pub(crate) fn ahead(options: &WeightOptions) -> Result<Arc<dyn Buffers>> {
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = &options.device {
        return Ok(Arc::new(crate::cuda::CudaBuffers::new(
            device,
            options.host_memory.clone(),
        )?));
    }
    Ok(at_once(options))
}

/// The memory that a block is read into whose turn is now.
pub(crate) fn at_once(options: &WeightOptions) -> Arc<dyn Buffers> {
    Arc::new(HostBuffers::new(options.device.clone()))
}

/// The tensors that a block lies in.
#[derive(Debug)]
pub(crate) struct BufferSet {
    tensors: Vec<Tensor>,
    arrival: Option<Box<dyn Arrival>>,
}

/// The end of copies to a device that are still under way.
pub(crate) trait Arrival: fmt::Debug + Send + Sync {
    /// Lets everything that the device is told to compute from now on wait for the copies.
    fn hold_back(&self) -> Result<()>;
}

impl BufferSet {
    /// Tensors that hold their values.
    pub(crate) fn arrived(tensors: Vec<Tensor>) -> Self {
        Self {
            tensors,
            arrival: None,
        }
    }

    /// Tensors whose values are on their way.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "only a GPU copies beside its kernels")
    )]
    pub(crate) fn arriving(tensors: Vec<Tensor>, arrival: Box<dyn Arrival>) -> Self {
        Self {
            tensors,
            arrival: Some(arrival),
        }
    }

    /// Makes sure that what is computed from now on finds the values in the tensors. Nothing may be done with them
    /// before, not even dropping them.
    pub(crate) fn arrive(&mut self) -> Result<()> {
        self.arrival.take().map_or(Ok(()), |arrival| arrival.hold_back())
    }

    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        self.tensors.iter().map(bytes).sum()
    }

    pub(crate) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}
