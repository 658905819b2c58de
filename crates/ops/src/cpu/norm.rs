//! Norms on the processor, each in one pass over memory: a row or a group stays in the cache between the
//! taking of its statistics and their use.

use rayon::prelude::*;

use super::activation::silu;

/// Rows are shared among threads in pieces of about this many values.
const PIECE: usize = 1 << 13;
/// Sums are taken over blocks of this many values in 32 bits, and over the blocks in 64.
const BLOCK: usize = 1024;

/// The mean, and the reciprocal of the standard deviation.
fn statistics(values: &[f32], epsilon: f64) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let mean = (block_sum(values, |value| value) / count) as f32;
    let variance = block_sum(values, |value| (value - mean) * (value - mean)) / count;
    (mean, (1.0 / (variance + epsilon).sqrt()) as f32)
}

fn block_sum(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    const LANES: usize = 16;
    let block = |block: &[f32]| {
        let mut lanes = [0.0_f32; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += of(value);
            }
        }
        let rest: f32 = rest.iter().map(|&value| of(value)).sum();
        f64::from(lanes.iter().sum::<f32>() + rest)
    };
    values.chunks(BLOCK).map(block).sum()
}

/// Applies `row(index, from, to)` to every row of `width` values.
pub(crate) fn by_rows(
    values: &[f32],
    width: usize,
    row: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    let rows_a_piece = (PIECE / width.max(1)).max(1);
    let piece = rows_a_piece * width.max(1);
    result
        .par_chunks_mut(piece)
        .zip(values.par_chunks(piece))
        .enumerate()
        .for_each(|(index, (to, from))| {
            let rows = from
                .chunks_exact(width.max(1))
                .zip(to.chunks_exact_mut(width.max(1)));
            for (offset, (from, to)) in rows.enumerate() {
                row(index * rows_a_piece + offset, from, to);
            }
        });
    result
}

/// Each row less its mean, over its deviation, then `value * weight + bias`.
pub(crate) fn layer_norm(
    values: &[f32],
    width: usize,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    epsilon: f64,
) -> Vec<f32> {
    by_rows(values, width, |_, from, to| {
        let (mean, scale) = statistics(from, epsilon);
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (from - mean) * scale;
        }
        if let Some(weight) = weight {
            to.iter_mut()
                .zip(weight)
                .for_each(|(value, weight)| *value *= weight);
        }
        if let Some(bias) = bias {
            to.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    })
}

/// As [`layer_norm`] without weights, then `value * (1 + scale) + shift`, one shift and scale for each
/// `tokens` rows.
pub(crate) fn modulated_layer_norm(
    values: &[f32],
    width: usize,
    tokens: usize,
    shift: &[f32],
    scale: &[f32],
    epsilon: f64,
) -> Vec<f32> {
    by_rows(values, width, |row, from, to| {
        let (mean, deviation) = statistics(from, epsilon);
        let range = row / tokens * width..(row / tokens + 1) * width;
        let modulation = scale[range.clone()].iter().zip(&shift[range]);
        for ((to, &from), (scale, shift)) in to.iter_mut().zip(from).zip(modulation) {
            *to = (from - mean) * deviation * (1.0 + scale) + shift;
        }
    })
}

/// Each row over the root of its mean square, times `weight`.
pub(crate) fn rms_norm(values: &[f32], width: usize, weight: &[f32], epsilon: f64) -> Vec<f32> {
    by_rows(values, width, |_, from, to| {
        let mean_square = block_sum(from, |value| value * value) / width.max(1) as f64;
        let scale = (1.0 / (mean_square + epsilon).sqrt()) as f32;
        for ((to, &from), weight) in to.iter_mut().zip(from).zip(weight) {
            *to = from * scale * weight;
        }
    })
}

/// `residual + gate * x`, one gate for each `tokens` rows.
pub(crate) fn gated_residual(
    residual: &[f32],
    gate: &[f32],
    x: &[f32],
    width: usize,
    tokens: usize,
) -> Vec<f32> {
    by_rows(x, width, |row, from, to| {
        let gate = &gate[row / tokens * width..(row / tokens + 1) * width];
        let residual = &residual[row * width..(row + 1) * width];
        for (((to, &from), gate), residual) in to.iter_mut().zip(from).zip(gate).zip(residual) {
            *to = residual + gate * from;
        }
    })
}

/// What a group norm is told besides its values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNormSettings<'a> {
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) epsilon: f64,
    pub(crate) then_silu: bool,
}

/// Each group of channels less its mean over its deviation, then each channel times its weight plus its bias,
/// and silu of that where it is asked for. `pixels` values a channel.
pub(crate) fn group_norm(values: &[f32], pixels: usize, settings: GroupNormSettings<'_>) -> Vec<f32> {
    let GroupNormSettings {
        channels,
        groups,
        weight,
        bias,
        epsilon,
        then_silu,
    } = settings;
    let channels_a_group = channels / groups;
    let group_size = (channels_a_group * pixels).max(1);
    let mut result = vec![0.0; values.len()];
    let pieces = result
        .par_chunks_mut(group_size)
        .zip(values.par_chunks(group_size));
    pieces.enumerate().for_each(|(index, (to, from))| {
        let (mean, deviation) = statistics(from, epsilon);
        let first = index % groups * channels_a_group;
        let rows = to.chunks_mut(pixels.max(1)).zip(from.chunks(pixels.max(1)));
        for (channel, (to, from)) in (first..).zip(rows) {
            let scale = deviation * weight[channel];
            let shift = bias[channel] - mean * scale;
            for (to, &from) in to.iter_mut().zip(from) {
                let value = from * scale + shift;
                *to = if then_silu { silu(value) } else { value };
            }
        }
    });
    result
}
