//! Tensors that are put together from parts.

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::capabilities::Backend;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

/// The `parts`, whose shapes differ in `dimension` alone, as one tensor.
///
/// # Errors
/// There are no parts, their shapes do not fit each other, or the device fails.
pub fn concatenate(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    match parts.first().map(|first| Backend::of(first.device())) {
        #[cfg(gpu)]
        Some(gpu) if has_kernels(gpu) => on_gpu!(gpu, concatenate(parts, dimension)),
        _ => Tensor::cat(parts, dimension),
    }
}

/// A tensor that is computed part by part.
#[derive(Debug)]
pub struct Parts(Tensor);

impl Parts {
    /// A tensor of which no part is there yet.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(shape: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        match Backend::of(device) {
            #[cfg(gpu)]
            gpu if has_kernels(gpu) => on_gpu!(gpu, undefined(device, shape, dtype)).map(Self),
            _ => Tensor::zeros(shape, dtype, device).map(Self),
        }
    }

    /// Puts `part` at `first` in `dimension`. In the other dimensions it has the shape of the whole.
    ///
    /// # Errors
    /// The part does not fit, or the device fails.
    pub fn put(&mut self, part: &Tensor, dimension: usize, first: usize) -> Result<()> {
        match Backend::of(self.0.device()) {
            #[cfg(gpu)]
            gpu if has_kernels(gpu) => on_gpu!(gpu, put(&self.0, part, dimension, first)),
            _ => self.0.slice_set(&part.contiguous()?, dimension, first),
        }
    }

    /// The tensor, after all of its parts were put.
    pub fn whole(self) -> Tensor {
        self.0
    }
}
