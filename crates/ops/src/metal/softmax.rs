//! The softmax of rows of scores, and queries that have no keys.

use candle_core::Tensor;

use super::launch::{Kernel, Source, count};
use super::row_norm::{ROWS, SIMDGROUP};
use super::tensors::{Input, Output, device_of};
use crate::Result;

/// As kernels have it.
#[repr(C)]
struct Scores {
    count: u32,
    width: u32,
    scale: f32,
}

/// Replaces `scores`, `[…, keys]`, by the softmax of each row of `scale * scores + bias`. `bias` has as many
/// values, in 32 bits. Rows that are all `-inf` become zeros.
///
/// # Errors
/// The device fails.
pub(super) fn in_place(scores: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<()> {
    let width = scores.dims().last().copied().unwrap_or(1);
    let rows = scores.elem_count() / width.max(1);
    let parameters = Scores {
        count: count(rows)?,
        width: count(width)?,
        scale: scale as f32,
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: "softmax",
        held_type: scores.dtype(),
        flags: vec![false, false, false, false, bias.is_some()],
        numbers: Vec::new(),
    };
    let of_scores = Input::new(scores)?;
    let of_bias = bias.map(Input::new).transpose()?;
    let groups = [rows.div_ceil(ROWS), 1, 1];
    kernel.launch(&device_of(scores)?, groups, [SIMDGROUP * ROWS, 1, 1], |encoder| {
        encoder.set_output_buffer(0, Some(of_scores.buffer()), of_scores.offset());
        of_bias.as_ref().unwrap_or(&of_scores).bind(encoder, 1);
        encoder.set_bytes(2, &parameters);
    })
}

/// As kernels have it.
#[repr(C)]
struct Masked {
    count: u32,
    heads: u32,
    queries: u32,
    keys: u32,
    size: u32,
    bias_strides: [u32; 3],
}

/// Zeros in `mixed`, `[batch, queries, heads, size]`, for the queries whose keys are all masked by `-inf` in `bias`,
/// `[batch, heads, queries, keys]`, of the same type.
///
/// # Errors
/// The device fails.
pub(super) fn zero_masked(mixed: &Output, size: usize, bias: &Tensor) -> Result<()> {
    let (batch, heads, queries, keys) = bias.dims4()?;
    let of_bias = Input::new(bias)?;
    let stride = |dimension: usize| count(of_bias.strides()[dimension]);
    let parameters = Masked {
        count: count(batch * heads * queries)?,
        heads: count(heads)?,
        queries: count(queries)?,
        keys: count(keys)?,
        size: count(size)?,
        bias_strides: [stride(0)?, stride(1)?, stride(2)?],
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: "zero_masked",
        held_type: bias.dtype(),
        flags: Vec::new(),
        numbers: Vec::new(),
    };
    let groups = [(batch * heads * queries).div_ceil(ROWS), 1, 1];
    kernel.launch(&device_of(bias)?, groups, [SIMDGROUP * ROWS, 1, 1], |encoder| {
        of_bias.bind(encoder, 0);
        mixed.bind(encoder, 1);
        encoder.set_bytes(2, &parameters);
    })
}
