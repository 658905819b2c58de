//! Buffers of host memory that tensors are read into.

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};
use half::{bf16, f16};

use crate::buffers::{BufferSet, Buffers};
use crate::lock::lock;
use crate::{Checkpoint, Result};

/// The values of a tensor in host memory, in the type that it is held in.
#[derive(Debug)]
pub(crate) enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Elements {
    /// Zeros, which the system has not given any memory for yet.
    pub(crate) fn zeros(held_type: DType, count: usize) -> Option<Self> {
        Some(match held_type {
            DType::F32 => Self::F32(vec![0.0; count]),
            DType::F16 => Self::F16(bytemuck::allocation::cast_vec(vec![0_u16; count])),
            DType::BF16 => Self::Bf16(bytemuck::allocation::cast_vec(vec![0_u16; count])),
            _ => return None,
        })
    }

    fn is(&self, held_type: DType, count: usize) -> bool {
        match self {
            Self::F32(values) => held_type == DType::F32 && values.len() == count,
            Self::F16(values) => held_type == DType::F16 && values.len() == count,
            Self::Bf16(values) => held_type == DType::BF16 && values.len() == count,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values.as_slice()),
            Self::F16(values) => size_of_val(values.as_slice()),
            Self::Bf16(values) => size_of_val(values.as_slice()),
        }
    }

    pub(crate) fn into_tensor(self, shape: &[usize]) -> candle_core::Result<Tensor> {
        match self {
            Self::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::F16(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::Bf16(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        }
    }
}

/// Buffers that wait to be used again, and the tensors that the others were made into.
#[derive(Debug)]
pub(crate) struct HostBuffers {
    /// Where a tensor is copied to once it was read, unless that is host memory.
    device: Device,
    free: Mutex<Vec<Elements>>,
    in_use: Mutex<Vec<Tensor>>,
}

impl HostBuffers {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            free: Mutex::default(),
            in_use: Mutex::default(),
        }
    }

    /// A buffer for `count` values: one that is free and just as large, or a new one. Before a new one is made
    /// at least as much of the free ones is given back, so that all together never grow.
    pub(crate) fn take(&self, held_type: DType, count: usize) -> Option<Elements> {
        let mut free = lock(&self.free);
        if let Some(place) = free.iter().position(|buffer| buffer.is(held_type, count)) {
            return Some(free.swap_remove(place));
        }
        let mut missing = count * held_type.size_in_bytes();
        while missing > 0
            && let Some(buffer) = free.pop()
        {
            missing = missing.saturating_sub(buffer.bytes());
        }
        drop(free);
        Elements::zeros(held_type, count)
    }

    /// Remembers a tensor that was made of a buffer.
    pub(crate) fn track(&self, tensor: &Tensor) {
        lock(&self.in_use).push(tensor.clone());
    }
}

impl Buffers for HostBuffers {
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor> {
        let tensor = checkpoint.read(name, held_type, Some(self))?;
        Ok(tensor.to_device(&self.device)?)
    }

    fn finish(&self) -> Result<BufferSet> {
        Ok(BufferSet::arrived(std::mem::take(&mut lock(&self.in_use))))
    }

    /// Takes the buffers out of the tensors.
    fn reclaim(&self, buffer_set: BufferSet) -> Result<()> {
        for tensor in buffer_set.into_tensors() {
            tensor.inplace_op1(&Reclaim(&self.free))?;
        }
        Ok(())
    }

    fn clear(&self) {
        lock(&self.free).clear();
    }
}

/// Moves a tensor's values out of it.
struct Reclaim<'a>(&'a Mutex<Vec<Elements>>);

impl InplaceOp1 for Reclaim<'_> {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let elements = match storage {
            CpuStorage::F32(values) => Elements::F32(std::mem::take(values)),
            CpuStorage::F16(values) => Elements::F16(std::mem::take(values)),
            CpuStorage::BF16(values) => Elements::Bf16(std::mem::take(values)),
            _ => return Ok(()),
        };
        lock(self.0).push(elements);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_out_of_its_tensor() {
        let buffers = HostBuffers::new(Device::Cpu);
        let first = buffers.take(DType::BF16, 6).unwrap();
        let address = match &first {
            Elements::Bf16(values) => values.as_ptr(),
            other => panic!("{other:?}"),
        };
        let tensor = first.into_tensor(&[2, 3]).unwrap();
        buffers.track(&tensor);
        drop(tensor);
        buffers.reclaim(buffers.finish().unwrap()).unwrap();
        match buffers.take(DType::BF16, 6).unwrap() {
            Elements::Bf16(values) => assert_eq!(values.as_ptr(), address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn buffers_of_other_sizes_make_room() {
        let buffers = HostBuffers::new(Device::Cpu);
        let tensors: Vec<Tensor> = (0..4)
            .map(|_| {
                Elements::zeros(DType::F32, 10)
                    .unwrap()
                    .into_tensor(&[10])
                    .unwrap()
            })
            .collect();
        buffers.reclaim(BufferSet::arrived(tensors)).unwrap();
        assert!(buffers.take(DType::F32, 15).unwrap().is(DType::F32, 15));
        assert_eq!(lock(&buffers.free).len(), 2);
    }
}
