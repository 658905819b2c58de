//! Norms on the processor, and what modulated transformers do around them.
//!
//! A row is read once from memory: it stays in the cache between the taking of its statistics and their use.

use rayon::prelude::*;

use super::activation::silu_of;
use super::vector::{sum_of, vectorised};

/// Rows are shared among threads in pieces of about this many values.
const PIECE: usize = 1 << 13;
/// Sums are taken over blocks of this many values in 32 bits, and over the blocks in 64.
const BLOCK: usize = 1024;
/// The statistics of a large group are shared among threads in pieces of this many values.
const GROUP_PIECE: usize = 1 << 16;

/// How many values there are, their mean, and the sum of the squares of what they differ from it.
#[derive(Debug, Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    const NONE: Self = Self {
        count: 0.0,
        mean: 0.0,
        squares: 0.0,
    };

    /// Those of both sets of values. Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    /// Computing Sample Variances", 1979.
    fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let difference = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + difference * other.count / count,
            squares: self.squares
                + other.squares
                + difference * difference * self.count * other.count / count,
        }
    }

    /// The mean, and the reciprocal of the standard deviation.
    fn mean_and_scale(self, epsilon: f64) -> (f32, f32) {
        let variance = self.squares / self.count.max(1.0);
        (self.mean as f32, (1.0 / (variance + epsilon).sqrt()) as f32)
    }
}

vectorised! {
    fn moments(values: &[f32]) -> Moments {
        let mut moments = Moments::NONE;
        for block in values.chunks(BLOCK) {
            let count = block.len() as f32;
            let mean = sum_of(block, |value| value) / count;
            // What the rounded mean leaves over is taken out of the mean and of the squares again.
            let rest = sum_of(block, |value| value - mean) / count;
            let squares = sum_of(block, |value| (value - mean) * (value - mean)) - rest * rest * count;
            let mean = f64::from(mean) + f64::from(rest);
            moments = moments.and(Moments { count: f64::from(count), mean, squares: f64::from(squares.max(0.0)) });
        }
        moments
    }

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

    fn add_in_place(values: &mut [f32], terms: &[f32]) {
        for (value, term) in values.iter_mut().zip(terms) {
            *value += term;
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
    let pixels = pixels.max(1);
    let group_size = channels_a_group * pixels;
    let apply = if then_silu {
        normalise_channel_silu
    } else {
        normalise_channel
    };
    let mut result = vec![0.0; values.len()];
    let pieces = result
        .par_chunks_mut(group_size)
        .zip(values.par_chunks(group_size));
    pieces.enumerate().for_each(|(index, (to, from))| {
        let pieces: Vec<Moments> = from.par_chunks(GROUP_PIECE).map(moments).collect();
        let (mean, deviation) = pieces
            .into_iter()
            .fold(Moments::NONE, Moments::and)
            .mean_and_scale(epsilon);
        let first = index % groups * channels_a_group;
        // Channels of small pictures are too little work to be shared.
        let rows = to
            .par_chunks_mut(pixels)
            .zip(from.par_chunks(pixels))
            .with_min_len(PIECE.div_ceil(pixels));
        rows.enumerate().for_each(|(channel, (to, from))| {
            let channel = first + channel;
            apply(from, mean, deviation * weight[channel], bias[channel], to);
        });
    });
    result
}
