//! Elements of dot products: floats, or pairs of bf16 if `PAIRS` is set, each as large as a float.

use super::simd::Simd;
use super::simd::tiles::{SIDE, TILE};

/// Numbers in an element.
pub(crate) const fn numbers<const PAIRS: bool>() -> usize {
    if PAIRS { 2 } else { 1 }
}

/// Elements for `count` numbers.
#[inline(always)]
pub(crate) fn elements<const PAIRS: bool>(count: usize) -> usize {
    count.div_ceil(numbers::<PAIRS>())
}

/// Writes a row's numbers as elements, times `scale` if given. An odd last number is paired with 0.
#[inline(always)]
pub(crate) fn lay<S: Simd, const PAIRS: bool>(simd: S, from: &[f32], scale: Option<f32>, to: &mut [f32]) {
    assert!(
        to.len() == elements::<PAIRS>(from.len()),
        "numbers do not fit where they are laid out. This is a bug."
    );
    // Multiplying by 1 changes nothing.
    let scale = simd.splat(scale.unwrap_or(1.0));
    for (from, to) in from
        .chunks(numbers::<PAIRS>() * S::LANES)
        .zip(to.chunks_mut(S::LANES))
    {
        let (first, second) = from.split_at(from.len().min(S::LANES));
        // SAFETY: as many are loaded and stored as there are.
        unsafe {
            let mut vector = simd.mul(simd.load_first(first.as_ptr(), first.len()), scale);
            if PAIRS {
                let second = simd.mul(simd.load_first(second.as_ptr(), second.len()), scale);
                vector = simd.narrow(vector, second);
            }
            simd.store_first(to.as_mut_ptr(), vector, to.len());
        }
    }
}

/// Writes a row's numbers as pairs of bf16 into a row of `depth` consecutive tiles, times `scale` if given, with
/// zeros after them. The first tile's row begins with `to`.
#[inline(always)]
pub(crate) fn lay_in_tiles<S: Simd>(simd: S, from: &[f32], scale: Option<f32>, depth: usize, to: &mut [f32]) {
    assert!(
        S::LANES == SIDE
            && elements::<true>(from.len()) <= depth * SIDE
            && (depth == 0 || (depth - 1) * TILE + SIDE <= to.len()),
        "numbers do not fit their tiles. This is a bug."
    );
    // Multiplying by 1 changes nothing.
    let scale = simd.splat(scale.unwrap_or(1.0));
    for tile in 0..depth {
        let first = (2 * tile * SIDE).min(from.len());
        let count = from.len() - first;
        // SAFETY: as many are loaded as there are, and the rows of all tiles lie inside of `to`.
        unsafe {
            let from = from.as_ptr().add(first);
            let (even, odd) = if count >= 2 * SIDE {
                (simd.load(from), simd.load(from.add(SIDE)))
            } else {
                let (here, after) = (count.min(SIDE), count.saturating_sub(SIDE));
                (
                    simd.load_first(from, here),
                    simd.load_first(from.wrapping_add(SIDE), after),
                )
            };
            let pairs = simd.narrow(simd.mul(even, scale), simd.mul(odd, scale));
            simd.store(to.as_mut_ptr().add(tile * TILE), pairs);
        }
    }
}
