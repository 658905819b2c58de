//! Copies of views.

use candle_core::{DType, Tensor, bail};
use candle_metal_kernels::metal::Buffer;

use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::Result;
use crate::gpu::{contiguous_strides, row_stride};

/// The dimensions that the kernel takes.
const RANK: usize = 6;
const THREADS: usize = 256;

/// As kernels have it.
#[repr(C)]
struct View {
    count: u32,
    sizes: [u32; RANK],
    from: [u32; RANK],
    to: [u32; RANK],
    /// The values of the last dimension that are copied. Others become zeros.
    copied: u32,
}

/// The tensor itself where it is contiguous, else a copy.
///
/// # Errors
/// The device fails.
pub(crate) fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_contiguous() {
        Ok(tensor.clone())
    } else {
        copied(tensor)
    }
}

/// A contiguous copy of the tensor.
///
/// # Errors
/// The device fails.
pub(crate) fn copied(tensor: &Tensor) -> Result<Tensor> {
    if !matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) || tensor.rank() > RANK {
        return tensor.force_contiguous();
    }
    let result = Output::new(&device_of(tensor)?, tensor.dims(), tensor.dtype())?;
    copy(tensor, &result, 0, &contiguous_strides(tensor.dims()))?;
    Ok(result.into_tensor())
}

/// The tensor with a contiguous last dimension and rows that follow each other: itself or a copy.
///
/// # Errors
/// The device fails.
pub(super) fn rows_in_order(tensor: &Tensor) -> Result<Tensor> {
    if row_stride(tensor).is_some() {
        Ok(tensor.clone())
    } else {
        contiguous(tensor)
    }
}

/// Writes `part` into `whole`, a contiguous tensor that nobody else reads, from `first` on in `dimension`. Their
/// shapes differ in that dimension alone.
///
/// # Errors
/// The device fails.
pub(crate) fn put(whole: &Tensor, part: &Tensor, dimension: usize, first: usize) -> Result<()> {
    let strides = contiguous_strides(whole.dims());
    let target = Input::new(whole)?;
    let first = target.offset() / whole.dtype().size_in_bytes() + first * strides[dimension];
    let width = part.dims().last().copied().unwrap_or(1);
    copy_rows(part, target.buffer(), first, &strides, width)
}

/// Copies `tensor` to `target` from its value number `first` on, with these strides.
///
/// # Errors
/// The tensor has too many dimensions, or the device fails.
pub(super) fn copy(tensor: &Tensor, target: &Output, first: usize, strides: &[usize]) -> Result<()> {
    copy_rows(
        tensor,
        target.buffer(),
        first,
        strides,
        tensor.dims().last().copied().unwrap_or(1),
    )
}

/// Copies `tensor` to the contiguous `target`, whose last dimension is `width`, with zeros behind each row.
///
/// # Errors
/// As [`copy`].
pub(super) fn copy_padded(tensor: &Tensor, target: &Output, width: usize) -> Result<()> {
    let dims = tensor.dims();
    let mut padded = dims.to_vec();
    if let Some(last) = padded.last_mut() {
        *last = width;
    }
    let strides = contiguous_strides(&padded);
    copy_rows(tensor, target.buffer(), 0, &strides, width)
}

/// Copies rows, each with zeros behind it to be of `width`.
fn copy_rows(tensor: &Tensor, target: &Buffer, first: usize, strides: &[usize], width: usize) -> Result<()> {
    let (dims, rank) = (tensor.dims(), tensor.rank());
    if rank > RANK {
        bail!("a copy of {dims:?}, which are more than {RANK} dimensions");
    }
    let own = dims.last().copied().unwrap_or(1);
    let values = tensor.elem_count() / own.max(1) * width;
    let mut view = View {
        count: count(values)?,
        sizes: [1; RANK],
        from: [0; RANK],
        to: [0; RANK],
        copied: count(own)?,
    };
    for index in 0..rank {
        let dimension = rank - 1 - index;
        view.sizes[index] = count(dims[dimension])?;
        view.from[index] = count(tensor.stride()[dimension])?;
        view.to[index] = count(strides[dimension])?;
    }
    view.sizes[0] = count(width)?;
    let kernel = Kernel {
        source: Source::Copy,
        name: "copy",
        held_type: tensor.dtype(),
        flags: Vec::new(),
        numbers: Vec::new(),
    };
    let of_tensor = Input::new(tensor)?;
    let groups = [values.div_ceil(THREADS), 1, 1];
    kernel.launch(&device_of(tensor)?, groups, [THREADS, 1, 1], |encoder| {
        of_tensor.bind(encoder, 0);
        encoder.set_output_buffer(1, Some(target), first * tensor.dtype().size_in_bytes());
        encoder.set_bytes(2, &view);
    })
}
