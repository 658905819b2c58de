//! The softmax of rows of scores.

use candle_core::Tensor;

use super::launch::{Kernel, Source, count};
use super::row_norm::{ROWS, SIMDGROUP};
use super::tensors::{Input, device_of};
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
