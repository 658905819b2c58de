//! Uploads weights to the device through page-locked host memory, on the copy stream.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};
use candle_core::{Storage, Tensor};

use super::page_locked::PageLocked;
use crate::parts::Parts;
use crate::stored::LONGEST_ROW;
use crate::uploads::count_uploaded;
use crate::{HostMemory, Result};

/// The number of staging buffers. While one is copied, the next is filled.
const STAGES: usize = 3;
/// The bytes of a staging buffer, enough for several threads to read.
const STAGE_BYTES: usize = LONGEST_ROW;

/// Fills tensors of a device in parallel with kernels.
#[derive(Debug)]
pub(super) struct Uploader {
    copies: Arc<CudaStream>,
    stages: Vec<PageLocked>,
    next_stage: usize,
    /// Tensors that are cached in host memory, by name.
    kept: HashMap<String, PageLocked>,
    host_memory: HostMemory,
}

impl Uploader {
    pub(super) fn new(copies: Arc<CudaStream>, host_memory: HostMemory) -> Self {
        Self {
            copies,
            stages: Vec::new(),
            next_stage: 0,
            kept: HashMap::new(),
            host_memory,
        }
    }

    /// Queues a copy of the tensor `name` into `tensor` on the copy stream. `parts` are not read for a tensor in the
    /// host cache.
    ///
    /// # Safety
    /// Until the copy stream has completed the copy, nothing else reads, writes or frees `tensor`.
    #[allow(unsafe_code)]
    pub(super) unsafe fn fill(&mut self, tensor: &Tensor, name: &str, parts: &Parts<'_>) -> Result<()> {
        let target = pointer(tensor, &self.copies)?;
        let length = tensor.elem_count() * tensor.dtype().size_in_bytes();
        if !self.kept.contains_key(name) && self.host_memory.take(length as u64) {
            match self.keep(length, parts) {
                Ok(memory) => {
                    self.kept.insert(name.to_owned(), memory);
                }
                Err(error) => {
                    self.host_memory.give_back(length as u64);
                    return Err(error);
                }
            }
        }
        count_uploaded(length as u64);
        if let Some(memory) = self.kept.get(name) {
            // SAFETY: the target is the whole of the tensor, which the caller leaves alone.
            return unsafe { memory.copy_to(0..length, target, &self.copies) };
        }
        let step = parts.step(STAGE_BYTES);
        for offset in (0..length).step_by(step.max(1)) {
            let count = step.min(length - offset);
            let (stage, copies) = self.stage()?;
            parts.read(offset, &mut stage.bytes()?[..count])?;
            // SAFETY: the target lies within the tensor, which the caller leaves alone.
            unsafe { stage.copy_to(0..count, target + offset as CUdeviceptr, copies)? };
        }
        Ok(())
    }

    fn keep(&self, length: usize, parts: &Parts<'_>) -> Result<PageLocked> {
        let mut memory = PageLocked::zeros(self.copies.context(), length)?;
        parts.read(0, memory.bytes()?)?;
        Ok(memory)
    }

    /// The next staging buffer.
    fn stage(&mut self) -> Result<(&mut PageLocked, &CudaStream)> {
        if self.stages.len() < STAGES {
            let stage = PageLocked::zeros(self.copies.context(), STAGE_BYTES)?;
            self.stages.push(stage);
        }
        let index = self.next_stage;
        self.next_stage = (index + 1) % STAGES;
        Ok((&mut self.stages[index], &self.copies))
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        let kept = self.kept.values().map(PageLocked::length).sum::<usize>();
        self.kept.clear();
        self.host_memory.give_back(kept as u64);
    }
}

/// The device address of the values of `tensor`.
pub(super) fn pointer(tensor: &Tensor, stream: &CudaStream) -> Result<CUdeviceptr> {
    fn start<T>(values: &CudaSlice<T>, stream: &CudaStream) -> CUdeviceptr {
        values.device_ptr(stream).0
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(CudaStorage { slice, .. }) = &*storage else {
        return not_a_buffer(tensor);
    };
    if !layout.is_contiguous() || layout.start_offset() != 0 {
        return not_a_buffer(tensor);
    }
    match slice {
        CudaStorageSlice::F32(values) => Ok(start(values, stream)),
        CudaStorageSlice::F16(values) => Ok(start(values, stream)),
        CudaStorageSlice::BF16(values) => Ok(start(values, stream)),
        CudaStorageSlice::U8(bytes) => Ok(start(bytes, stream)),
        _ => not_a_buffer(tensor),
    }
}

fn not_a_buffer(tensor: &Tensor) -> Result<CUdeviceptr> {
    let (shape, held_type) = (tensor.dims(), tensor.dtype());
    Err(candle_core::Error::msg(format!(
        "values are copied to whole tensors of floats or bytes, not {held_type:?} {shape:?}"
    ))
    .into())
}
