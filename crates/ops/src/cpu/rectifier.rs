//! Rectifiers and scaled sums on the processor.

use rayon::prelude::*;

use super::vector::vectorised;

/// Values in a piece of work.
const PIECE: usize = 1 << 13;

/// Every value, or `slope` times those that are not positive.
pub(crate) fn leaky_relu(values: &[f32], slope: f32) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    result
        .par_chunks_mut(PIECE)
        .zip(values.par_chunks(PIECE))
        .for_each(|(to, from)| rectify(from, slope, to));
    result
}

/// [`leaky_relu`] with a slope for each channel of `pixels`.
pub(crate) fn prelu(values: &[f32], slopes: &[f32], pixels: usize) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    result
        .par_chunks_mut(pixels.max(1))
        .zip(values.par_chunks(pixels.max(1)))
        .enumerate()
        .for_each(|(channel, (to, from))| rectify(from, slopes[channel % slopes.len()], to));
    result
}

/// `left + scale * right`
pub(crate) fn scaled_sum(left: &[f32], scale: f32, right: &[f32]) -> Vec<f32> {
    let mut result = vec![0.0; left.len()];
    let sources = left.par_chunks(PIECE).zip(right.par_chunks(PIECE));
    result
        .par_chunks_mut(PIECE)
        .zip(sources)
        .for_each(|(to, (left, right))| add_scaled(left, scale, right, to));
    result
}

vectorised! {
    fn rectify(from: &[f32], slope: f32, to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = if from > 0.0 { from } else { slope * from };
        }
    }

    fn add_scaled(left: &[f32], scale: f32, right: &[f32], to: &mut [f32]) {
        for ((to, &left), &right) in to.iter_mut().zip(left).zip(right) {
            *to = left + scale * right;
        }
    }
}
