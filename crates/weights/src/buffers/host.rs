//! Buffers for blocks of a CPU, and for single blocks of an NVIDIA GPU, which are read into host memory and
//! copied from there.

use candle_core::{DType, Device, Tensor};

use super::{BufferSet, Buffers};
use crate::buffer_pool::BufferPool;
use crate::{Checkpoint, Result};

/// A pool of host memory, from which tensors are copied to a device unless that computes in host memory.
#[derive(Debug)]
pub(crate) struct HostBuffers {
    device: Device,
    pool: BufferPool,
}

impl HostBuffers {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            pool: BufferPool::default(),
        }
    }
}

impl Buffers for HostBuffers {
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor> {
        let tensor = checkpoint.read(name, held_type, Some(&self.pool))?;
        Ok(tensor.to_device(&self.device)?)
    }

    fn read_held_rows(&self, checkpoint: &Checkpoint, name: &str) -> Result<Tensor> {
        checkpoint.read_held_rows(name, &self.pool)
    }

    fn finish(&self) -> Result<BufferSet> {
        Ok(BufferSet::ready(self.pool.take_tracked()))
    }

    fn reclaim(&self, buffer_set: BufferSet) -> Result<()> {
        self.pool.reclaim(buffer_set.into_tensors())
    }

    fn clear(&self) {
        self.pool.clear();
    }
}
