//! Sums over slices.

use rayon::prelude::*;

use super::vector::vectorised;

/// Values that a thread adds at a time.
const PIECE: usize = 1 << 14;

vectorised! {
    fn add(x: &[f32], y: &[f32], to: &mut [f32]) {
        for ((to, x), y) in to.iter_mut().zip(x).zip(y) {
            *to = x + y;
        }
    }
}

/// The sums of the values of `x` and `y`, of which there are as many.
pub(crate) fn sum(x: &[f32], y: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; x.len()];
    let pieces = sums.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE));
    pieces
        .zip(y.par_chunks(PIECE))
        .for_each(|((to, x), y)| add(x, y, to));
    sums
}
