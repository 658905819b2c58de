//! Blocks that stay: read by several threads at a time, each into page-locked memory and from there to the device.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::{DType, Device, Tensor};

use super::page_locked::PageLocked;
use super::upload::pointer;
use crate::buffers::{BufferSet, Buffers};
use crate::lock::lock;
use crate::parts::Parts;
use crate::stored::LONGEST_ROW;
use crate::uploads::count_uploaded;
use crate::{Checkpoint, Result};

/// The staging buffers of a device, which all threads share, and the bytes of each.
const STAGES: usize = 8;
const STAGE_BYTES: usize = LONGEST_ROW;

/// The staging buffers of each device, by its number.
static STAGING: Mutex<BTreeMap<usize, Arc<Staging>>> = Mutex::new(BTreeMap::new());

/// Buffers for blocks of an NVIDIA GPU that are read once.
#[derive(Debug)]
pub(crate) struct ResidentBuffers {
    device: CudaDevice,
    staging: Arc<Staging>,
}

impl ResidentBuffers {
    pub(crate) fn new(device: &CudaDevice) -> Self {
        let ordinal = device.cuda_stream().context().ordinal();
        Self {
            device: device.clone(),
            staging: lock(&STAGING).entry(ordinal).or_default().clone(),
        }
    }
}

impl Buffers for ResidentBuffers {
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor> {
        self.read_parts(&checkpoint.in_parts(name, held_type)?)
    }

    fn read_held_rows(&self, checkpoint: &Checkpoint, name: &str) -> Result<Tensor> {
        self.read_parts(&checkpoint.rows_in_parts(name)?)
    }

    fn finish(&self) -> Result<BufferSet> {
        Ok(BufferSet::ready(Vec::new()))
    }

    fn reclaim(&self, _: BufferSet) -> Result<()> {
        Ok(())
    }

    fn clear(&self) {}
}

impl ResidentBuffers {
    #[allow(unsafe_code)]
    fn read_parts(&self, parts: &Parts<'_>) -> Result<Tensor> {
        let shape = parts.shape();
        let device = Device::Cuda(self.device.clone());
        let tensor = Tensor::zeros(shape.iter().product::<usize>(), parts.held_type(), &device)?;
        // Copies on the stream of kernels: they come after the allocation, and before all use.
        let stream = self.device.cuda_stream();
        let target = pointer(&tensor, &stream)?;
        let length = tensor.elem_count() * tensor.dtype().size_in_bytes();
        count_uploaded(length as u64);
        let step = parts.step(STAGE_BYTES);
        for offset in (0..length).step_by(step.max(1)) {
            let count = step.min(length - offset);
            let mut stage = self.staging.take(&self.device)?;
            let copied = (|| {
                parts.read(offset, &mut stage.bytes()?[..count])?;
                // SAFETY: the target lies within the tensor, and nothing else is queued for it before the copy.
                unsafe { stage.copy_to(0..count, target + offset as CUdeviceptr, &stream) }
            })();
            self.staging.give_back(stage);
            copied?;
        }
        Ok(tensor.reshape(shape)?)
    }
}

/// Page-locked memory that threads take turns with.
#[derive(Debug, Default)]
struct Staging {
    stages: Mutex<Stages>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct Stages {
    free: Vec<PageLocked>,
    made: usize,
}

impl Staging {
    /// A free buffer, a new one, or the next that is given back.
    fn take(&self, device: &CudaDevice) -> Result<PageLocked> {
        let mut stages = lock(&self.stages);
        loop {
            if !stages.free.is_empty() {
                // The one whose copy was queued first.
                return Ok(stages.free.remove(0));
            }
            if stages.made < STAGES {
                let stage = PageLocked::zeros(device.cuda_stream().context(), STAGE_BYTES)?;
                stages.made += 1;
                return Ok(stage);
            }
            stages = self
                .given_back
                .wait(stages)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, stage: PageLocked) {
        lock(&self.stages).free.push(stage);
        self.given_back.notify_one();
    }

    /// Frees the buffers that nobody holds.
    fn clear(&self) {
        let mut stages = lock(&self.stages);
        stages.made -= stages.free.len();
        stages.free.clear();
    }
}

/// Frees the staging buffers of a device.
pub(crate) fn release_staging(device: &CudaDevice) {
    let ordinal = device.cuda_stream().context().ordinal();
    if let Some(staging) = lock(&STAGING).get(&ordinal) {
        staging.clear();
    }
}
