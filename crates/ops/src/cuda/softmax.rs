//! The softmax of rows, in one kernel.

use candle_core::{D, DType, Tensor, bail};

use super::launch::{Kernel, Source, count, suffix};
use super::tensors::{Address, address, device_of, optional_address};
use crate::Result;

/// The threads that share a row: what the kernel is written for.
const THREADS: u32 = 256;

/// As kernels have it.
#[repr(C)]
struct Scores {
    scores: Address,
    bias: Address,
    rows: u32,
    width: u32,
    scale: f32,
}

/// The softmax of `scale * scores + bias` over the last dimension, in the place of `scores`, which is contiguous and
/// which nobody else reads. `bias` is of the same shape, contiguous, in 32 bits. A row of nothing but minus infinity
/// becomes zeros.
///
/// # Errors
/// The shapes or types do not fit, or the device fails.
pub(super) fn in_place(scores: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<()> {
    let width = scores.dim(D::Minus1)?;
    if let Some(bias) = bias
        && (bias.dims() != scores.dims() || bias.dtype() != DType::F32 || !bias.is_contiguous())
    {
        bail!("a bias {bias:?} of scores {scores:?}");
    }
    let rows = scores.elem_count() / width.max(1);
    let parameters = Scores {
        scores: address(scores)?,
        bias: optional_address(bias)?,
        rows: count(rows)?,
        width: count(width)?,
        scale: scale as f32,
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: &format!("softmax_{}", suffix(scores.dtype())?),
        blocks: [rows, 1, 1],
        threads: [THREADS, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(scores)?, parameters)
    }
}
