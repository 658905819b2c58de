//! The two matrix products of attention, with a query in each lane.
//!
//! Dimensions that are summed over consist of elements: floats, or pairs of bf16 if `PAIRS` is set.

use super::panels::KEY_BLOCK;
use crate::cpu::simd::Simd;

/// Elements of features that scores are summed over at a time: their part of the queries stays in the L1
/// cache.
const FEATURES: usize = 128;

/// `sums[row][vector] += left[row][step] * right[step][vector]` over all `steps`.
///
/// # Safety
/// `left` can be read at every row and step, `right` a row of `VECTORS` vectors at every step.
#[inline(always)]
unsafe fn accumulate<S: Simd, const PAIRS: bool, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::Vector; VECTORS]; ROWS],
    (left, row_step, step): (*const f32, usize, usize),
    right: *const f32,
    steps: usize,
) {
    for index in 0..steps {
        let mut vectors = [simd.zero(); VECTORS];
        for (place, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            *vector = unsafe { simd.load(right.add((index * VECTORS + place) * S::LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: guaranteed by the caller.
            let factor = simd.splat(unsafe { *left.add(row * row_step + index * step) });
            for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                *sum = if PAIRS {
                    simd.dot_bf16(*sum, factor, vector)
                } else {
                    simd.fma(factor, vector, *sum)
                };
            }
        }
    }
}

/// # Safety
/// As many vectors as the result has can be read.
#[inline(always)]
unsafe fn load_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    from: *const f32,
) -> [[S::Vector; VECTORS]; ROWS] {
    let mut tile = [[simd.zero(); VECTORS]; ROWS];
    for (index, vector) in tile.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        *vector = unsafe { simd.load(from.add(index * S::LANES)) };
    }
    tile
}

/// # Safety
/// As many vectors as the result has can be read.
#[inline(always)]
unsafe fn store_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    tile: &[[S::Vector; VECTORS]; ROWS],
    to: *mut f32,
) {
    for (index, &vector) in tile.as_flattened().iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { simd.store(to.add(index * S::LANES), vector) };
    }
}

/// The scores of a group of queries, `[size, queries]`, against `count` keys, `[keys, size]` and padded to
/// whole `ROWS`: `[keys, queries]`. `size` counts elements of features.
#[inline(always)]
pub(super) fn scores<S: Simd, const PAIRS: bool, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    queries: &[f32],
    keys: &[f32],
    count: usize,
    size: usize,
    scores: &mut [f32],
) {
    let width = VECTORS * S::LANES;
    let padded = count.next_multiple_of(ROWS);
    assert!(
        queries.len() >= size * width && keys.len() >= padded * size && scores.len() >= padded * width,
        "scores do not fit their panels. This is a bug."
    );
    for first in (0..size).step_by(FEATURES) {
        let features = FEATURES.min(size - first);
        for key in (0..count).step_by(ROWS) {
            // SAFETY: the lengths were checked above; whole `ROWS` of keys from `key` on lie within `padded`.
            unsafe {
                let to = scores.as_mut_ptr().add(key * width);
                let mut sums = if first == 0 {
                    [[simd.zero(); VECTORS]; ROWS]
                } else {
                    load_tile::<S, ROWS, VECTORS>(simd, to)
                };
                let left = (keys.as_ptr().add(key * size + first), size, 1);
                let right = queries.as_ptr().add(first * width);
                accumulate::<S, PAIRS, ROWS, VECTORS>(simd, &mut sums, left, right, features);
                store_tile(simd, &sums, to);
            }
        }
    }
}

/// Multiplies `sums`, `[features, queries]`, by `factors` and adds the values of a block of keys,
/// `[features / ROWS, keys, ROWS]`, times their `weights`, `[keys, queries]`. `count` counts elements of
/// keys.
#[inline(always)]
pub(super) fn add_values<S: Simd, const PAIRS: bool, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    weights: &[f32],
    values: &[f32],
    count: usize,
    value_size: usize,
    factors: &[S::Vector; VECTORS],
    sums: &mut [f32],
) {
    let width = VECTORS * S::LANES;
    let padded = value_size.next_multiple_of(ROWS);
    assert!(
        weights.len() >= count * width
            && count <= KEY_BLOCK
            && values.len() >= padded * KEY_BLOCK
            && sums.len() >= padded * width,
        "values do not fit their panels. This is a bug."
    );
    for feature in (0..value_size).step_by(ROWS) {
        // SAFETY: the lengths were checked above; whole `ROWS` of features from `feature` on lie within
        // `padded`.
        unsafe {
            let to = sums.as_mut_ptr().add(feature * width);
            let mut tile = load_tile::<S, ROWS, VECTORS>(simd, to);
            for sums in &mut tile {
                for (sum, &factor) in sums.iter_mut().zip(factors) {
                    *sum = simd.mul(*sum, factor);
                }
            }
            let left = (values.as_ptr().add(feature * KEY_BLOCK), 1, ROWS);
            accumulate::<S, PAIRS, ROWS, VECTORS>(simd, &mut tile, left, weights.as_ptr(), count);
            store_tile(simd, &tile, to);
        }
    }
}
