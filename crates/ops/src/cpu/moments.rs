//! Means and variances on the CPU, of values that may arrive in pieces.

use rayon::prelude::*;

use super::simd::{InstructionSet, Kernel, MOST_LANES, Simd};

/// Values of a block, which is summed in 32 bits; blocks are summed in 64 bits.
const BLOCK: usize = 1024;
/// Independent accumulators, so that no addition waits for the one before.
const TOGETHER: usize = 4;
/// Smallest number of values of a parallel task.
const PIECE: usize = 1 << 13;

/// The number of values, and the sums of their deviations and squared deviations from a number near their
/// mean. Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    count: f64,
    /// The mean of the first values.
    centre: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    pub(crate) const NONE: Self = Self {
        count: 0.0,
        centre: 0.0,
        sum: 0.0,
        squares: 0.0,
    };

    /// The moments of both sets of values.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        if self.count == 0.0 {
            return other;
        }
        let apart = other.centre - self.centre;
        Self {
            count: self.count + other.count,
            centre: self.centre,
            sum: self.sum + (other.sum + other.count * apart),
            squares: self.squares + (other.squares + apart * (2.0 * other.sum + other.count * apart)),
        }
    }

    /// The mean and the reciprocal standard deviation.
    #[inline(always)]
    pub(crate) fn mean_and_scale(self, epsilon: f64) -> (f32, f32) {
        let count = self.count.max(1.0);
        let apart = self.sum / count;
        // Rounding could make it negative.
        let variance = (self.squares / count - apart * apart).max(0.0);
        (
            (self.centre + apart) as f32,
            (1.0 / (variance + epsilon).sqrt()) as f32,
        )
    }

    /// Adds the rows of `width` values, one row after the other.
    #[inline(always)]
    pub(super) fn and_rows<S: Simd>(self, simd: S, values: &[f32], width: usize) -> Self {
        let mut moments = self;
        let mut rest = values;
        while !rest.is_empty() {
            let (row, after) = rest.split_at(width.min(rest.len()));
            let mut row = row;
            while !row.is_empty() {
                let (block, after) = row.split_at(BLOCK.min(row.len()));
                moments = moments.and(Self::of_block(simd, block));
                row = after;
            }
            rest = after;
        }
        moments
    }

    /// The moments of at most [`BLOCK`] values.
    #[inline(always)]
    fn of_block<S: Simd>(simd: S, values: &[f32]) -> Self {
        let count = values.len() as f32;
        let centre = sum(simd, values) / count;
        let (sum, squares) = sums_about(simd, values, centre);
        Self {
            count: f64::from(count),
            centre: f64::from(centre),
            sum: f64::from(sum),
            squares: f64::from(squares),
        }
    }
}

/// The mean of the squares of `values`.
#[inline(always)]
pub(super) fn mean_square<S: Simd>(simd: S, values: &[f32]) -> f64 {
    let mut squares = 0.0;
    let mut rest = values;
    while !rest.is_empty() {
        let (block, after) = rest.split_at(BLOCK.min(rest.len()));
        squares += f64::from(sums_about(simd, block, 0.0).1);
        rest = after;
    }
    squares / values.len().max(1) as f64
}

/// The sum of `values`.
#[inline(always)]
fn sum<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (first, length) = (values.as_ptr(), values.len());
    let mut sums = [simd.zero(); TOGETHER];
    let mut at = 0;
    // SAFETY: as many values are loaded as there are.
    unsafe {
        while at + TOGETHER * S::LANES <= length {
            for sum in &mut sums {
                *sum = simd.add(*sum, simd.load(first.add(at)));
                at += S::LANES;
            }
        }
        while at + S::LANES <= length {
            sums[0] = simd.add(sums[0], simd.load(first.add(at)));
            at += S::LANES;
        }
        if at < length {
            sums[1] = simd.add(sums[1], simd.load_first(first.add(at), length - at));
        }
    }
    total(simd, sums)
}

/// The sums of the deviations of `values` from `centre` and of their squares.
#[inline(always)]
fn sums_about<S: Simd>(simd: S, values: &[f32], centre: f32) -> (f32, f32) {
    let (first, length) = (values.as_ptr(), values.len());
    let (mut sums, mut squares) = ([simd.zero(); TOGETHER], [simd.zero(); TOGETHER]);
    let everywhere = simd.splat(centre);
    let mut at = 0;
    // SAFETY: as many values are loaded as there are.
    unsafe {
        while at + TOGETHER * S::LANES <= length {
            for (sum, squares) in sums.iter_mut().zip(&mut squares) {
                let apart = simd.sub(simd.load(first.add(at)), everywhere);
                *sum = simd.add(*sum, apart);
                *squares = simd.fma(apart, apart, *squares);
                at += S::LANES;
            }
        }
        while at + S::LANES <= length {
            let apart = simd.sub(simd.load(first.add(at)), everywhere);
            sums[0] = simd.add(sums[0], apart);
            squares[0] = simd.fma(apart, apart, squares[0]);
            at += S::LANES;
        }
        if at < length {
            // Lanes without a value have a deviation of 0.
            let centres = [centre; MOST_LANES];
            let centres = simd.load_first(centres.as_ptr(), length - at);
            let apart = simd.sub(simd.load_first(first.add(at), length - at), centres);
            sums[1] = simd.add(sums[1], apart);
            squares[1] = simd.fma(apart, apart, squares[1]);
        }
    }
    (total(simd, sums), total(simd, squares))
}

/// The sum of all lanes.
#[inline(always)]
fn total<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; TOGETHER]) -> f32 {
    simd.sum(simd.add(simd.add(a, b), simd.add(c, d)))
}

/// The rows of a channel to add to its moments.
struct Rows<'a> {
    before: Moments,
    values: &'a [f32],
    width: usize,
}

impl Kernel for Rows<'_> {
    type Output = Moments;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Moments {
        self.before.and_rows(simd, self.values, self.width)
    }
}

/// Adds the values of each channel, `pixels` in rows of `width`, to the channel's `moments`. Rows are added
/// one after the other, so the number of rows in a call does not change the result.
pub(crate) fn add_channels(
    set: InstructionSet,
    moments: &mut [Moments],
    values: &[f32],
    pixels: usize,
    width: usize,
) {
    let (pixels, width) = (pixels.max(1), width.max(1));
    moments
        .par_iter_mut()
        .zip(values.par_chunks(pixels))
        .with_min_len(PIECE.div_ceil(pixels))
        .for_each(|(moments, values)| {
            *moments = set.run(Rows {
                before: *moments,
                values,
                width,
            });
        });
}
