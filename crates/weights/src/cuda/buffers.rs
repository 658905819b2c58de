//! Buffers of GPU memory that blocks are copied into ahead of their turns.

use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{DType, Device, Tensor};

use super::upload::Uploader;
use super::{failed, has_one_stream};
use crate::buffers::{BufferSet, Buffers, CopyFence};
use crate::lock::lock;
use crate::parts::Parts;
use crate::{Checkpoint, Error, HostMemory, Result};

/// Free tensors of a device, and those in use.
#[derive(Debug)]
pub(crate) struct CudaBuffers {
    device: Device,
    /// The stream of kernels, allocations and frees.
    compute: Arc<CudaStream>,
    /// The stream of copies.
    copies: Arc<CudaStream>,
    free: Mutex<Vec<Free>>,
    in_use: Mutex<Vec<Tensor>>,
    uploader: Mutex<Uploader>,
}

/// A flat tensor that can be reused after the kernels that read it.
#[derive(Debug)]
struct Free {
    tensor: Tensor,
    last_use: Arc<CudaEvent>,
}

impl CudaBuffers {
    /// Buffers on `device`, filled from disk or from the cache in `host_memory`.
    pub(crate) fn new(device: &CudaDevice, host_memory: HostMemory) -> Result<Self> {
        let compute = device.cuda_stream();
        if !has_one_stream(&compute) {
            return Err(Error::Reader {
                reason: "the device was not opened by open_cuda".to_owned(),
            });
        }
        let copies = compute.context().new_stream().map_err(failed)?;
        Ok(Self {
            device: Device::Cuda(device.clone()),
            compute,
            uploader: Mutex::new(Uploader::new(copies.clone(), host_memory)),
            copies,
            free: Mutex::default(),
            in_use: Mutex::default(),
        })
    }

    /// Takes a flat tensor of `count` values for the copy stream: a free one of exactly this size, or a new
    /// one. Before a new tensor is allocated, at least as many bytes of free ones are dropped, so that the
    /// pool never grows.
    fn take(&self, held_type: DType, count: usize) -> Result<Tensor> {
        let mut free = lock(&self.free);
        let fits = |free: &Free| free.tensor.dtype() == held_type && free.tensor.elem_count() == count;
        if let Some(place) = free.iter().position(fits) {
            let Free { tensor, last_use } = free.swap_remove(place);
            self.copies.wait(&last_use).map_err(failed)?;
            return Ok(tensor);
        }
        let mut missing = count * held_type.size_in_bytes();
        while missing > 0
            && let Some(Free { tensor, .. }) = free.pop()
        {
            missing = missing.saturating_sub(tensor.elem_count() * tensor.dtype().size_in_bytes());
        }
        drop(free);
        let tensor = Tensor::zeros(count, held_type, &self.device)?;
        // The allocation is ordered on the compute stream.
        self.copies.join(&self.compute).map_err(failed)?;
        Ok(tensor)
    }

    #[allow(unsafe_code)]
    fn read_parts(&self, parts: &Parts<'_>, name: &str) -> Result<Tensor> {
        let shape = parts.shape();
        let tensor = self.take(parts.held_type(), shape.iter().product())?;
        lock(&self.in_use).push(tensor.clone());
        // SAFETY: the copies' stream waits for the tensor's last use or its making, by `take`. What computes
        // with it or frees it from now on waits for the copies, by the set of buffers that it is handed out
        // in; and so does `reclaim`.
        unsafe { lock(&self.uploader).fill(&tensor, name, parts)? };
        Ok(tensor.reshape(shape)?)
    }
}

impl Buffers for CudaBuffers {
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor> {
        self.read_parts(&checkpoint.in_parts(name, held_type)?, name)
    }

    fn read_held_rows(&self, checkpoint: &Checkpoint, name: &str) -> Result<Tensor> {
        self.read_parts(&checkpoint.rows_in_parts(name)?, name)
    }

    fn finish(&self) -> Result<BufferSet> {
        let tensors = std::mem::take(&mut *lock(&self.in_use));
        let copied = self.copies.record_event(None).map_err(failed)?;
        let compute = self.compute.clone();
        Ok(BufferSet::copying(tensors, Box::new(Copied { copied, compute })))
    }

    fn reclaim(&self, buffer_set: BufferSet) -> Result<()> {
        let last_use = Arc::new(self.compute.record_event(None).map_err(failed)?);
        let tensors = buffer_set.into_tensors().into_iter();
        lock(&self.free).extend(tensors.map(|tensor| Free {
            tensor,
            last_use: last_use.clone(),
        }));
        Ok(())
    }

    fn clear(&self) {
        lock(&self.free).clear();
    }
}

/// The end of the copies that fill a set of buffers.
#[derive(Debug)]
struct Copied {
    copied: CudaEvent,
    compute: Arc<CudaStream>,
}

impl CopyFence for Copied {
    fn hold_back_kernels(&self) -> Result<()> {
        self.compute.wait(&self.copied).map_err(failed)
    }
}
