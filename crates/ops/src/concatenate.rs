//! Tensors one behind the other.

use candle_core::Tensor;

use crate::Result;
use crate::capabilities::Backend;

/// The `parts`, whose shapes differ in `dimension` alone, as one tensor. They are dropped.
///
/// # Errors
/// There are no parts, their shapes do not fit each other, or the device fails.
pub fn concatenate(parts: Vec<Tensor>, dimension: usize) -> Result<Tensor> {
    let of_first = parts.first().map(Tensor::device);
    match of_first.map(Backend::of) {
        #[cfg(metal)]
        Some(Backend::Metal) => crate::metal::concatenate(&parts, dimension),
        _ => Tensor::cat(&parts, dimension),
    }
}
