//! Tensors in their order in memory, in memory of their own, and in another type.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::capabilities::Backend;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

/// The tensor itself where its values are contiguous in memory, else a copy.
///
/// # Errors
/// The device fails.
pub fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    match Backend::of(tensor.device()) {
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, contiguous(tensor)),
        _ => tensor.contiguous(),
    }
}

/// A copy of the tensor, contiguous in memory, which does not keep the memory that the tensor is a view of.
///
/// # Errors
/// The device fails.
pub fn copied(tensor: &Tensor) -> Result<Tensor> {
    match Backend::of(tensor.device()) {
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, copied(tensor)),
        _ => tensor.force_contiguous(),
    }
}

/// The tensor in memory of its own size: itself, or a copy where the device gave it more. For tensors that are
/// kept.
///
/// # Errors
/// The device fails.
pub fn compact(tensor: Tensor) -> Result<Tensor> {
    match Backend::of(tensor.device()) {
        // candle rounds the bytes of a buffer up to a power of 2.
        #[cfg(metal)]
        Backend::Metal => crate::metal::copied(&tensor),
        _ => Ok(tensor),
    }
}

/// `tensor` with values of type `dtype`.
///
/// # Errors
/// The device fails.
pub fn converted(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    match Backend::of(tensor.device()) {
        #[cfg(feature = "cuda")]
        Backend::Cuda => crate::cuda::converted(tensor, dtype),
        _ => tensor.to_dtype(dtype),
    }
}
