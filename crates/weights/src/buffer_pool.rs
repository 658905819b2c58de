//! A pool of host memory that tensors are read into, so that the next block reuses the buffers of the last
//! one.

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};
use half::{bf16, f16};

use crate::Result;
use crate::lock::lock;

/// The values of a tensor in host memory, in the type that the tensor is held in, or the bytes of its quantised
/// rows.
#[derive(Debug)]
pub(crate) enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Bytes(Vec<u8>),
}

impl Elements {
    /// Zeros, for which the system has not committed memory yet.
    pub(crate) fn zeros(held_type: DType, count: usize) -> Option<Self> {
        Some(match held_type {
            DType::F32 => Self::F32(vec![0.0; count]),
            DType::F16 => Self::F16(bytemuck::allocation::cast_vec(vec![0_u16; count])),
            DType::BF16 => Self::Bf16(bytemuck::allocation::cast_vec(vec![0_u16; count])),
            DType::U8 => Self::Bytes(vec![0; count]),
            _ => return None,
        })
    }

    fn is(&self, held_type: DType, count: usize) -> bool {
        match self {
            Self::F32(values) => held_type == DType::F32 && values.len() == count,
            Self::F16(values) => held_type == DType::F16 && values.len() == count,
            Self::Bf16(values) => held_type == DType::BF16 && values.len() == count,
            Self::Bytes(bytes) => held_type == DType::U8 && bytes.len() == count,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values.as_slice()),
            Self::F16(values) => size_of_val(values.as_slice()),
            Self::Bf16(values) => size_of_val(values.as_slice()),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    pub(crate) fn into_tensor(self, shape: &[usize]) -> candle_core::Result<Tensor> {
        match self {
            Self::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::F16(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::Bf16(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::Bytes(bytes) => Tensor::from_vec(bytes, shape, &Device::Cpu),
        }
    }
}

/// Free buffers, and the tensors that took the others.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Mutex<FreeBuffers>,
    in_use: Mutex<Vec<Tensor>>,
}

/// The free buffers, those first that came back first.
#[derive(Debug, Default)]
struct FreeBuffers {
    buffers: Vec<Elements>,
    /// How many of them were free already when the reading of the current block began.
    older: usize,
    /// Whether a block is being read.
    is_reading: bool,
}

impl FreeBuffers {
    fn remove(&mut self, index: usize) -> Elements {
        self.older -= usize::from(index < self.older);
        self.buffers.remove(index)
    }
}

impl BufferPool {
    /// Takes a buffer of `count` values, or `None` for a type that is not held: a free buffer of exactly this
    /// size, or a new one. Before the pool allocates a new buffer it drops at least as many bytes of free
    /// ones, so that it never grows.
    pub(crate) fn take(&self, held_type: DType, count: usize) -> Option<Elements> {
        let mut free = lock(&self.free);
        if !free.is_reading {
            free.is_reading = true;
            free.older = free.buffers.len();
        }
        let fitting = free.buffers.iter().position(|buffer| buffer.is(held_type, count));
        if let Some(index) = fitting {
            return Some(free.remove(index));
        }
        let mut missing = count * held_type.size_in_bytes();
        while missing > 0 && !free.buffers.is_empty() {
            missing = missing.saturating_sub(free.remove(0).bytes());
        }
        drop(free);
        Elements::zeros(held_type, count)
    }

    /// Records a tensor that took one of the pool.
    pub(crate) fn track(&self, tensor: &Tensor) {
        lock(&self.in_use).push(tensor.clone());
    }

    /// The tensors that were recorded since the last call: those of a block, which has been read. Buffers that were free
    /// before and that it had no use for are dropped: blocks of other sizes would leave more and more of them.
    pub(crate) fn take_tracked(&self) -> Vec<Tensor> {
        let mut free = lock(&self.free);
        let older = free.older;
        drop(free.buffers.drain(..older));
        (free.older, free.is_reading) = (0, false);
        drop(free);
        std::mem::take(&mut lock(&self.in_use))
    }

    /// Moves the buffers out of `tensors` and back into the pool. Nothing may read the tensors any more.
    pub(crate) fn reclaim(&self, tensors: Vec<Tensor>) -> Result<()> {
        for tensor in tensors {
            tensor.inplace_op1(&Reclaim(&self.free))?;
        }
        Ok(())
    }

    /// Drops all free buffers.
    pub(crate) fn clear(&self) {
        *lock(&self.free) = FreeBuffers::default();
    }
}

/// Moves the values of a tensor out of the tensor.
struct Reclaim<'a>(&'a Mutex<FreeBuffers>);

impl InplaceOp1 for Reclaim<'_> {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let elements = match storage {
            CpuStorage::F32(values) => Elements::F32(std::mem::take(values)),
            CpuStorage::F16(values) => Elements::F16(std::mem::take(values)),
            CpuStorage::BF16(values) => Elements::Bf16(std::mem::take(values)),
            CpuStorage::U8(bytes) => Elements::Bytes(std::mem::take(bytes)),
            _ => return Ok(()),
        };
        lock(self.0).buffers.push(elements);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_out_of_its_tensor() {
        let pool = BufferPool::default();
        let first = pool.take(DType::BF16, 6).unwrap();
        let address = match &first {
            Elements::Bf16(values) => values.as_ptr(),
            other => panic!("{other:?}"),
        };
        let tensor = first.into_tensor(&[2, 3]).unwrap();
        pool.track(&tensor);
        drop(tensor);
        pool.reclaim(pool.take_tracked()).unwrap();
        match pool.take(DType::BF16, 6).unwrap() {
            Elements::Bf16(values) => assert_eq!(values.as_ptr(), address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn buffers_of_other_sizes_make_room() {
        let pool = BufferPool::default();
        let tensors: Vec<Tensor> = (0..4)
            .map(|_| {
                Elements::zeros(DType::F32, 10)
                    .unwrap()
                    .into_tensor(&[10])
                    .unwrap()
            })
            .collect();
        pool.reclaim(tensors).unwrap();
        assert!(pool.take(DType::F32, 15).unwrap().is(DType::F32, 15));
        assert_eq!(lock(&pool.free).buffers.len(), 2);
    }

    #[test]
    fn what_a_block_has_no_use_for_is_dropped_after_it() {
        let pool = BufferPool::default();
        let free = |counts: &[usize]| {
            let tensors = counts.iter().map(|&count| {
                let buffer = Elements::zeros(DType::F32, count).unwrap();
                buffer.into_tensor(&[count]).unwrap()
            });
            pool.reclaim(tensors.collect()).unwrap();
        };
        let left = || {
            lock(&pool.free)
                .buffers
                .iter()
                .map(Elements::bytes)
                .sum::<usize>()
                / 4
        };
        // A large block comes back, and a small one is read. Meanwhile another one comes back.
        free(&[100, 100, 10]);
        pool.take(DType::F32, 10).unwrap();
        free(&[20, 10]);
        assert_eq!(left(), 230);
        pool.take_tracked();
        assert_eq!(left(), 30, "what came back meanwhile waits for the next block");
        pool.take(DType::F32, 10).unwrap();
        pool.take_tracked();
        assert_eq!(left(), 0);
    }
}
