//! Norms of rows: layer norms, with weights or modulated, and RMS norms.

use candle_core::{D, Tensor, bail};

use super::copy::rows_in_order;
use super::launch::{Kernel, Source, count, lanes, suffix};
use super::tensors::{Address, address, aligned, device_of, optional_address, undefined};
use crate::Result;
use crate::gpu::{RowNorm, row_stride};

const THREADS: u32 = 128;

/// As kernels have it.
#[repr(C)]
struct Rows {
    x: Address,
    y: Address,
    scale: Address,
    shift: Address,
    count: u32,
    width: u32,
    stride: u32,
    rows_of_one: u32,
    scale_stride: u32,
    shift_stride: u32,
    scale_offset: f32,
    epsilon: f32,
    subtracts_mean: u32,
}

/// Norms the last dimension of `x`.
///
/// # Errors
/// The device fails.
pub(crate) fn row_norm(x: &Tensor, norm: RowNorm<'_>) -> Result<Tensor> {
    let x = rows_in_order(x)?;
    let width = x.dim(D::Minus1)?;
    let rows = x.elem_count() / width.max(1);
    let scale = norm.scale.map(rows_in_order).transpose()?;
    let shift = norm.shift.map(rows_in_order).transpose()?;
    for vectors in scale.iter().chain(&shift) {
        if vectors.dtype() != x.dtype() {
            bail!("a norm in {:?} of {:?}", vectors.dtype(), x.dtype());
        }
    }
    let batch = match norm.scale.or(norm.shift) {
        Some(vectors) if vectors.rank() == 2 => vectors.dim(0)?,
        _ => 1,
    };
    let stride_of = |vectors: &Option<Tensor>| match vectors {
        Some(vectors) if batch > 1 => row_stride(vectors).unwrap_or(width),
        _ => 0,
    };
    let (stride, scale_stride, shift_stride) = (
        row_stride(&x).unwrap_or(width),
        stride_of(&scale),
        stride_of(&shift),
    );
    let result = undefined(x.device(), x.dims(), x.dtype())?;
    let parameters = Rows {
        x: address(&x)?,
        y: address(&result)?,
        scale: optional_address(scale.as_ref())?,
        shift: optional_address(shift.as_ref())?,
        count: count(rows)?,
        width: count(width)?,
        stride: count(stride)?,
        rows_of_one: count((rows / batch).max(1))?,
        scale_stride: count(scale_stride)?,
        shift_stride: count(shift_stride)?,
        scale_offset: norm.scale_offset,
        epsilon: norm.epsilon as f32,
        subtracts_mean: u32::from(norm.subtracts_mean),
    };
    let addresses = [parameters.x, parameters.y, parameters.scale, parameters.shift];
    let distances = [width, stride, scale_stride, shift_stride];
    // The narrowest kernel whose threads hold a row in registers, and the threads of a row.
    let parts = width.div_ceil(lanes(x.dtype()));
    let (name, of_row) = match parts {
        _ if !aligned(x.dtype(), &addresses, &distances) => ("row_norm", 32),
        0..=8 => ("row_norm_8", 8),
        9..=16 => ("row_norm_16", 16),
        17..=32 => ("row_norm_32", 32),
        33..=128 => ("row_norm_128", 32),
        129..=320 => ("row_norm_320", 32),
        321..=512 => ("row_norm_512", 32),
        _ => ("row_norm", 32),
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: &format!("{name}_{}", suffix(x.dtype())?),
        blocks: [(rows * of_row).div_ceil(THREADS as usize), 1, 1],
        threads: [THREADS, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(&x)?, parameters)?;
    }
    Ok(result)
}
