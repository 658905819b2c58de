//! Norms of rows: layer norms, with weights or modulated, and RMS norms.

use candle_core::{D, Tensor};

use super::copy::rows_in_order;
use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::Result;
use crate::gpu::{RowNorm, row_stride};

/// The rows of a threadgroup, one for each of its simdgroups.
pub(super) const ROWS: usize = 8;
/// The threads of a simdgroup.
pub(super) const SIMDGROUP: usize = 32;

/// As kernels have it.
#[repr(C)]
struct Rows {
    count: u32,
    width: u32,
    stride: u32,
    rows_of_one: u32,
    scale_stride: u32,
    shift_stride: u32,
    scale_offset: f32,
    epsilon: f32,
}

/// Norms the last dimension of `x`.
///
/// # Errors
/// The device fails.
pub(crate) fn row_norm(x: &Tensor, norm: RowNorm<'_>) -> Result<Tensor> {
    let device = device_of(x)?;
    let x = rows_in_order(x)?;
    let width = x.dim(D::Minus1)?;
    let rows = x.elem_count() / width.max(1);
    let [scale, shift] = [norm.scale, norm.shift];
    let [scale, shift] = [
        scale.map(rows_in_order).transpose()?,
        shift.map(rows_in_order).transpose()?,
    ];
    let (scale, shift) = (scale.as_ref().unwrap_or(&x), shift.as_ref().unwrap_or(&x));
    let batch = match norm.scale.or(norm.shift) {
        Some(vectors) if vectors.rank() == 2 => vectors.dim(0)?,
        _ => 1,
    };
    let stride_of = |vectors: &Tensor| {
        if batch == 1 {
            0
        } else {
            row_stride(vectors).unwrap_or(width)
        }
    };
    let parameters = Rows {
        count: count(rows)?,
        width: count(width)?,
        stride: count(row_stride(&x).unwrap_or(width))?,
        rows_of_one: count((rows / batch).max(1))?,
        scale_stride: count(stride_of(scale))?,
        shift_stride: count(stride_of(shift))?,
        scale_offset: norm.scale_offset,
        epsilon: norm.epsilon as f32,
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: "row_norm",
        held_type: x.dtype(),
        flags: vec![norm.subtracts_mean, norm.scale.is_some(), norm.shift.is_some()],
        numbers: Vec::new(),
    };
    let result = Output::new(&device, x.dims(), x.dtype())?;
    let inputs = [Input::new(&x)?, Input::new(scale)?, Input::new(shift)?];
    let [of_x, of_scale, of_shift] = &inputs;
    kernel.launch(
        &device,
        [rows.div_ceil(ROWS), 1, 1],
        [SIMDGROUP * ROWS, 1, 1],
        |encoder| {
            of_x.bind(encoder, 0);
            result.bind(encoder, 1);
            of_scale.bind(encoder, 2);
            of_shift.bind(encoder, 3);
            encoder.set_bytes(4, &parameters);
        },
    )?;
    Ok(result.into_tensor())
}
