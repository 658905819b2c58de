//! Means and variances on the processor, from values that may come in pieces.

use rayon::prelude::*;

use super::vector::{sum_of, vectorised};

/// Sums are taken over blocks of this many values in 32 bits, and over the blocks in 64.
pub(super) const BLOCK: usize = 1024;
/// Channels are shared among threads in pieces of at least this many values.
const PIECE: usize = 1 << 13;

/// How many values there are, their mean, and the sum of the squares of what they differ from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    pub(crate) const NONE: Self = Self {
        count: 0.0,
        mean: 0.0,
        squares: 0.0,
    };

    /// Those of both sets of values. Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    /// Computing Sample Variances", 1979.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
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
    pub(crate) fn mean_and_scale(self, epsilon: f64) -> (f32, f32) {
        let variance = self.squares / self.count.max(1.0);
        (self.mean as f32, (1.0 / (variance + epsilon).sqrt()) as f32)
    }
}

vectorised! {
    /// Those of `values`.
    pub(super) fn moments(values: &[f32]) -> Moments {
        moments_after(Moments::NONE, values, values.len().max(1))
    }

    /// Those of the rows of `width` values, one row after the other, taken together with `before`.
    fn moments_with(before: Moments, values: &[f32], width: usize) -> Moments {
        moments_after(before, values, width)
    }
}

#[inline(always)]
fn moments_after(before: Moments, values: &[f32], width: usize) -> Moments {
    let mut moments = before;
    for block in values.chunks(width).flat_map(|row| row.chunks(BLOCK)) {
        let count = block.len() as f32;
        let mean = sum_of(block, |value| value) / count;
        // What the rounded mean leaves over is taken out of the mean and of the squares again.
        let rest = sum_of(block, |value| value - mean) / count;
        let squares = sum_of(block, |value| (value - mean) * (value - mean)) - rest * rest * count;
        moments = moments.and(Moments {
            count: f64::from(count),
            mean: f64::from(mean) + f64::from(rest),
            squares: f64::from(squares.max(0.0)),
        });
    }
    moments
}

/// Adds the values of each channel, `pixels` in rows of `width`, to the channel's `moments`. Rows are added one
/// after the other, so that it makes no difference how many of them come at a time.
pub(crate) fn add_channels(moments: &mut [Moments], values: &[f32], pixels: usize, width: usize) {
    let pixels = pixels.max(1);
    moments
        .par_iter_mut()
        .zip(values.par_chunks(pixels))
        .with_min_len(PIECE.div_ceil(pixels))
        .for_each(|(moments, channel)| *moments = moments_with(*moments, channel, width.max(1)));
}
