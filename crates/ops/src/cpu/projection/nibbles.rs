//! The microkernel for quantised weights: a tile of rows by two vectors of columns, in integers.
//!
//! The products of a part are summed exactly, scaled, and added to the accumulators, part after part. So a
//! result depends neither on what else is computed nor on the length of a stretch.

use std::hint::black_box;

use super::super::simd::{NIBBLE_DOTS, Simd};
use super::blocks::{PART, WORDS};
use super::quantized_rows::Scale;
use super::tile::{Sums, VECTORS};

const _: () = assert!(WORDS <= NIBBLE_DOTS);

/// The offset of values of two planes.
const MORE: f32 = 128.0;

/// Quantised rows of activations, part after part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) words: *const u32,
    pub(super) scales: *const Scale,
    /// Parts from row to row.
    pub(super) step: usize,
}

/// A tile's columns, as [`pack`](super::blocks::pack) writes them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub(super) words: *const f32,
    pub(super) headers: *const f32,
}

/// Accumulates the products of `parts` parts of `ROWS` rows and the columns of a tile, whose values have
/// `PLANES` planes.
///
/// # Safety
/// There are as many rows, and as many columns of as many parts. `sums` has space for all sums, for this call
/// alone.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const ROWS: usize, const PLANES: usize>(
    simd: S,
    parts: usize,
    rows: Rows,
    columns: Columns,
    sums: Sums,
) {
    // The compiler would unroll a loop this short and reorder its sums, which need more registers than there
    // are.
    let part_words = black_box(WORDS);
    let mut totals = [[simd.zero(); VECTORS]; ROWS];
    // SAFETY: guaranteed by the caller.
    unsafe {
        if sums.add {
            for (row, totals) in totals.iter_mut().enumerate() {
                for (index, total) in totals.iter_mut().enumerate() {
                    *total = simd.load(sums.to.add(row * sums.step + index * S::LANES));
                }
            }
        }
        let (mut words, mut headers) = (columns.words, columns.headers);
        for part in 0..parts {
            let row_words = rows.words.add(part * WORDS);
            let products = products::<S, ROWS, PLANES>(simd, part_words, row_words, rows.step, words);
            words = words.add(PLANES * WORDS * VECTORS * S::LANES);
            for (row, (totals, products)) in totals.iter_mut().zip(products).enumerate() {
                let of_row = *rows.scales.add(row * rows.step + part);
                let (scale, sum) = (simd.splat(of_row.scale), simd.splat(of_row.sum));
                for (index, (total, product)) in totals.iter_mut().zip(products).enumerate() {
                    let of_columns = headers.add(index * S::LANES);
                    let of_part = simd.load(of_columns);
                    if PLANES == 2 {
                        let product = simd.negated_fma(simd.splat(MORE), sum, product);
                        *total = simd.fma(simd.mul(scale, product), of_part, *total);
                    } else {
                        let least = simd.load(of_columns.add(VECTORS * S::LANES));
                        *total = simd.fma(simd.mul(scale, product), of_part, *total);
                        *total = simd.negated_fma(simd.mul(scale, sum), least, *total);
                    }
                }
            }
            headers = headers.add(2 * VECTORS * S::LANES);
        }
        for (row, totals) in totals.iter().enumerate() {
            for (index, &total) in totals.iter().enumerate() {
                simd.store(sums.to.add(row * sums.step + index * S::LANES), total);
            }
        }
    }
}

/// The sum of the products of a part of [`WORDS`] `words`. `PART` products of integers from 0 to 15 with
/// 8-bit integers are an integer that a float holds, as is 16 times that.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn products<S: Simd, const ROWS: usize, const PLANES: usize>(
    simd: S,
    words: usize,
    rows: *const u32,
    step: usize,
    columns: *const f32,
) -> [[S::Vector; VECTORS]; ROWS] {
    const { assert!(PART * 255 * 128 < 1 << 24) };
    let a_plane = WORDS * VECTORS * S::LANES;
    let mut sums = [[[simd.zero(); PLANES]; VECTORS]; ROWS];
    // SAFETY: guaranteed by the caller.
    unsafe {
        for word in 0..words {
            let columns = columns.add(word * VECTORS * S::LANES);
            let mut nibbles = [[simd.zero(); PLANES]; VECTORS];
            for (vector, nibbles) in nibbles.iter_mut().enumerate() {
                for (plane, nibbles) in nibbles.iter_mut().enumerate() {
                    *nibbles = simd.load(columns.add(plane * a_plane + vector * S::LANES));
                }
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let bytes = simd.splat(f32::from_bits(*rows.add(row * step * WORDS + word)));
                for vector in 0..VECTORS {
                    for plane in 0..PLANES {
                        sums[vector][plane] =
                            simd.nibble_dot(sums[vector][plane], nibbles[vector][plane], bytes);
                    }
                }
            }
        }
    }
    let mut products = [[simd.zero(); VECTORS]; ROWS];
    for (products, sums) in products.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *products = simd.nibble_sums(sums[0]);
        if PLANES == 2 {
            *products = simd.fma(simd.splat(16.0), simd.nibble_sums(sums[1]), *products);
        }
    }
    products
}
