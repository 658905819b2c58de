//! The GEMM microkernel: a tile of rows by two vectors of columns, accumulated in registers.

use super::super::simd::Simd;
use super::partition::STRETCH;

/// Vectors of columns in a tile.
pub(super) const VECTORS: usize = 2;

/// Rows that a tile prefetches for the next tiles.
pub(super) const FETCHED: usize = 4;

/// The rows of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: *const f32,
    /// Floats from row to row.
    pub(super) step: usize,
    /// Number of rows, at least one. The last one fills the rest of the tile.
    pub(super) count: usize,
}

impl Rows {
    /// Packed rows, as many as a tile takes.
    #[inline(always)]
    pub(super) fn laid<const ROWS: usize>(first: *const f32) -> Self {
        Self {
            first,
            step: STRETCH,
            count: ROWS,
        }
    }

    /// Pointers to the tile's rows.
    #[inline(always)]
    fn starts<const ROWS: usize>(self) -> [*const f32; ROWS] {
        let mut starts = [self.first; ROWS];
        for (row, start) in starts.iter_mut().enumerate() {
            *start = self.first.wrapping_add(row.min(self.count - 1) * self.step);
        }
        starts
    }
}

/// The accumulator memory of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub(super) to: *mut f32,
    /// From row to row.
    pub(super) step: usize,
    /// Whether to add to the contents.
    pub(super) add: bool,
}

/// Accumulates `steps` products for each of `ROWS` rows and each column of `TILES` tiles, each of which has
/// its own panel. A row has a float, or a pair of bf16, for each step. Products are summed in the order of
/// the steps. Meanwhile [`FETCHED`] rows from `next` on, `next_step` floats apart, are prefetched.
///
/// # Safety
/// `rows` have `steps` floats each; `weight` has for each tile space for [`STRETCH`] times [`VECTORS`]
/// vectors, of which `steps` times as many are initialised; `sums` is as large as stated, and this call's
/// alone.
#[inline(always)]
pub(super) unsafe fn tiles<S: Simd, const ROWS: usize, const TILES: usize, const PAIRS: bool>(
    simd: S,
    steps: usize,
    rows: Rows,
    weight: *const f32,
    sums: Sums,
    next: *const f32,
    next_step: usize,
) {
    // Floats in a cache line.
    const LINE: usize = 16;
    const A_LINE: usize = LINE / FETCHED;
    let mut totals = [[[simd.zero(); VECTORS]; TILES]; ROWS];
    let rows = rows.starts::<ROWS>();
    // SAFETY: guaranteed by the caller.
    unsafe {
        let (mut place, mut columns) = (0, weight);
        for fetched in 0..FETCHED {
            let mut next = next.wrapping_add(fetched * next_step);
            for _ in 0..steps / LINE {
                simd.prefetch(next.cast());
                next = next.wrapping_add(LINE);
                if PAIRS {
                    simd.prefetch(next.cast());
                    next = next.wrapping_add(LINE);
                }
                for _ in 0..A_LINE {
                    step::<S, ROWS, TILES, PAIRS>(simd, &rows, place, columns, &mut totals);
                    place += 1;
                    columns = columns.add(VECTORS * S::LANES);
                }
            }
        }
        for _ in 0..steps % LINE {
            step::<S, ROWS, TILES, PAIRS>(simd, &rows, place, columns, &mut totals);
            place += 1;
            columns = columns.add(VECTORS * S::LANES);
        }
        for (row, totals) in totals.iter().enumerate() {
            for (index, &total) in totals.as_flattened().iter().enumerate() {
                let place = sums.to.add(row * sums.step + index * S::LANES);
                let before = if sums.add { simd.load(place) } else { simd.zero() };
                simd.store(place, simd.add(before, total));
            }
        }
    }
}

/// Adds the products of the element at `place` of each row.
///
/// # Safety
/// As for [`tiles`].
#[inline(always)]
unsafe fn step<S: Simd, const ROWS: usize, const TILES: usize, const PAIRS: bool>(
    simd: S,
    rows: &[*const f32; ROWS],
    place: usize,
    columns: *const f32,
    totals: &mut [[[S::Vector; VECTORS]; TILES]; ROWS],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for tile in 0..TILES {
            let columns = columns.add(tile * STRETCH * VECTORS * S::LANES);
            let (left, right) = (simd.load(columns), simd.load(columns.add(S::LANES)));
            for (row, totals) in rows.iter().zip(&mut *totals) {
                let (value, totals) = (simd.splat(*row.add(place)), &mut totals[tile]);
                if PAIRS {
                    totals[0] = simd.dot_bf16(totals[0], value, left);
                    totals[1] = simd.dot_bf16(totals[1], value, right);
                } else {
                    totals[0] = simd.fma(value, left, totals[0]);
                    totals[1] = simd.fma(value, right, totals[1]);
                }
            }
        }
    }
}
