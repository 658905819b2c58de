//! Norms on the processor, and what modulated transformers do around them.
//!
//! A row is read once from memory: it stays in the cache between the taking of its statistics and their use.

use rayon::prelude::*;

use super::activation::silu_of;
use super::moments::{BLOCK, Moments, moments};
use super::vector::{add_in_place, sum_of, vectorised};

/// Rows are shared among threads in pieces of about this many values.
const PIECE: usize = 1 << 13;

vectorised! {
    fn mean_square(values: &[f32]) -> f64 {
        let sum: f64 = values.chunks(BLOCK).map(|block| f64::from(sum_of(block, |value| value * value))).sum();
        sum / values.len().max(1) as f64
    }

    /// `(from - mean) * deviation`
    fn normalise(from: &[f32], mean: f32, deviation: f32, to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (from - mean) * deviation;
        }
    }

    /// `(from - mean) * deviation * (1 + scale) + shift`
    fn normalise_and_modulate(
        from: &[f32],
        mean: f32,
        deviation: f32,
        scale: &[f32],
        shift: &[f32],
        to: &mut [f32],
    ) {
        for (((to, &from), scale), shift) in to.iter_mut().zip(from).zip(scale).zip(shift) {
            *to = (from - mean) * deviation * (1.0 + scale) + shift;
        }
    }

    fn multiply_in_place(values: &mut [f32], factors: &[f32]) {
        for (value, factor) in values.iter_mut().zip(factors) {
            *value *= factor;
        }
    }

    /// `from * scale * weight`
    fn scale_and_weigh(from: &[f32], scale: f32, weight: &[f32], to: &mut [f32]) {
        for ((to, &from), weight) in to.iter_mut().zip(from).zip(weight) {
            *to = from * scale * weight;
        }
    }

    /// `residual + gate * x`
    fn add_gated(residual: &[f32], gate: &[f32], x: &[f32], to: &mut [f32]) {
        for (((to, &x), gate), residual) in to.iter_mut().zip(x).zip(gate).zip(residual) {
            *to = residual + gate * x;
        }
    }

    /// `(from - mean) * scale + shift`
    fn normalise_channel(from: &[f32], mean: f32, scale: f32, shift: f32, to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (from - mean) * scale + shift;
        }
    }

    /// Silu of `(from - mean) * scale + shift`.
    fn normalise_channel_silu(from: &[f32], mean: f32, scale: f32, shift: f32, to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = silu_of((from - mean) * scale + shift);
        }
    }
}

/// Applies `row(index, from, to)` to every row of `width` values.
fn by_rows(values: &[f32], width: usize, row: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    let width = width.max(1);
    let rows_a_piece = (PIECE / width).max(1);
    let piece = rows_a_piece * width;
    result
        .par_chunks_mut(piece)
        .zip(values.par_chunks(piece))
        .enumerate()
        .for_each(|(index, (to, from))| {
            let rows = from.chunks_exact(width).zip(to.chunks_exact_mut(width));
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
        let (mean, deviation) = moments(from).mean_and_scale(epsilon);
        normalise(from, mean, deviation, to);
        if let Some(weight) = weight {
            multiply_in_place(to, weight);
        }
        if let Some(bias) = bias {
            add_in_place(to, bias);
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
        let (mean, deviation) = moments(from).mean_and_scale(epsilon);
        let range = row / tokens * width..(row / tokens + 1) * width;
        normalise_and_modulate(from, mean, deviation, &scale[range.clone()], &shift[range], to);
    })
}

/// Each row over the root of its mean square, times `weight`.
pub(crate) fn rms_norm(values: &[f32], width: usize, weight: &[f32], epsilon: f64) -> Vec<f32> {
    by_rows(values, width, |_, from, to| {
        let scale = (1.0 / (mean_square(from) + epsilon).sqrt()) as f32;
        scale_and_weigh(from, scale, weight, to);
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
        add_gated(&residual[row * width..(row + 1) * width], gate, from, to);
    })
}

/// What becomes of the values of a channel: `(value - mean) * scale + shift`, and silu of that where it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelNorm {
    mean: f32,
    scale: f32,
    shift: f32,
    then_silu: bool,
}

impl ChannelNorm {
    pub(crate) fn apply(self, from: &[f32], to: &mut [f32]) {
        let Self {
            mean, scale, shift, ..
        } = self;
        if self.then_silu {
            normalise_channel_silu(from, mean, scale, shift, to);
        } else {
            normalise_channel(from, mean, scale, shift, to);
        }
    }
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

impl GroupNormSettings<'_> {
    /// How the channels of pictures with these `moments` are normed: each group of them less its mean over its
    /// deviation, then each channel times its weight plus its bias.
    pub(crate) fn channel_norms(&self, moments: &[Moments]) -> Vec<ChannelNorm> {
        let channels_a_group = self.channels / self.groups;
        let groups = moments.chunks(channels_a_group).enumerate();
        let norms = groups.flat_map(|(index, group)| {
            let together = group.iter().copied().fold(Moments::NONE, Moments::and);
            let (mean, deviation) = together.mean_and_scale(self.epsilon);
            let first = index % self.groups * channels_a_group;
            (first..first + channels_a_group).map(move |channel| ChannelNorm {
                mean,
                scale: deviation * self.weight[channel],
                shift: self.bias[channel],
                then_silu: self.then_silu,
            })
        });
        norms.collect()
    }
}

/// Each channel, of `pixels` values, normed as its own of `norms` says.
pub(crate) fn norm_channels(values: &[f32], pixels: usize, norms: &[ChannelNorm]) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    let pixels = pixels.max(1);
    // Channels of small pictures are too little work to be shared.
    let channels = result.par_chunks_mut(pixels).zip(values.par_chunks(pixels));
    channels
        .zip(norms)
        .with_min_len(PIECE.div_ceil(pixels))
        .for_each(|((to, from), norm)| norm.apply(from, to));
    result
}
