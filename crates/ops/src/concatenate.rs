//! Tensors one behind the other, and in their order in memory.

use candle_core::Tensor;

use crate::Result;
use crate::capabilities::Backend;

/// The `parts`, whose shapes differ in `dimension` alone, as one tensor.
///
/// # Errors
/// There are no parts, their shapes do not fit each other, or the device fails.
pub fn concatenate(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    match parts.first().map(|first| Backend::of(first.device())) {
        #[cfg(metal)]
        Some(Backend::Metal) => crate::metal::concatenate(parts, dimension),
        _ => Tensor::cat(parts, dimension),
    }
}

/// The tensor itself where its values are contiguous in memory, else a copy.
///
/// # Errors
/// The device fails.
pub fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    match Backend::of(tensor.device()) {
        #[cfg(metal)]
        Backend::Metal => crate::metal::contiguous(tensor),
        _ => tensor.contiguous(),
    }
}
