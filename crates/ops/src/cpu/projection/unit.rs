//! The products of a task on a matrix unit.
//!
//! All rows of the task are laid out as tiles, a stretch of them, and stay in the L2 cache. Then the columns of one tile after
//! the other are packed into the L1 cache and multiplied by all rows, while those of the next are fetched from memory.

use std::ops::Range;

use super::super::buffers::LINE;
use super::super::elements::{elements, lay_in_tiles};
use super::super::kernel::Values;
use super::super::simd::Simd;
use super::super::simd::tiles::{ONE_TAP, SIDE, TILE, TileProduct, TileUnit};
use super::Weight;
use super::partition::Limits;
use super::task::{Part, Task, Tiles};
use super::tile::VECTORS;

/// Rows of a group, which is multiplied at a time.
const ROWS: usize = Limits::TILES.row_step;
/// The most elements of a stretch.
const STRETCH: usize = Limits::TILES.stretch;
/// Elements of a stretch of a tile's rows.
const BLOCK: usize = SIDE * STRETCH;
/// Bytes of a line of a cache.
const LINE_BYTES: usize = LINE * size_of::<f32>();

impl Task<'_> {
    /// Accumulates all products.
    #[inline(always)]
    pub(super) fn multiply_on_unit<S: Simd>(&mut self, simd: S, tiles: Tiles) {
        let inputs = self.projection.inputs;
        let _unit = TileUnit::new(simd);
        let length = 2 * Limits::TILES.stretch_of(elements::<true>(inputs));
        let part = |first: usize| {
            let count = length.min(inputs.saturating_sub(first));
            Part {
                first,
                count,
                steps: elements::<true>(count),
            }
        };
        // With no inputs the accumulators must be written as 0.
        for first in (0..inputs.max(1)).step_by(length) {
            let (here, next) = (part(first), part(first + length));
            if here.steps == 0 {
                self.workspace.panel.fill(0.0);
            }
            self.lay_rows(simd, here);
            for index in 0..tiles.count {
                self.pack::<S, true>(simd, tiles, here, index, 0);
                let after = match index + 1 < tiles.count {
                    true => (here, index + 1),
                    false => (next, 0),
                };
                self.multiply_columns(simd, tiles, here, index, after);
            }
        }
    }

    /// Lays the rows out as tiles.
    #[inline(always)]
    fn lay_rows<S: Simd>(&mut self, simd: S, part: Part) {
        let (inputs, depth) = (self.projection.inputs, depth(part));
        for (index, row) in self.rows.clone().enumerate() {
            let from = &self.x[row * inputs + part.first..][..part.count];
            let to = &mut self.workspace.rows[index / SIDE * BLOCK + index % SIDE * SIDE..];
            lay_in_tiles(simd, from, None, depth, to);
        }
    }

    /// Multiplies all rows by the packed columns of the tile at `index`, and fetches the part and the tile of `after`.
    #[inline(always)]
    fn multiply_columns<S: Simd>(
        &mut self,
        simd: S,
        tiles: Tiles,
        part: Part,
        index: usize,
        after: (Part, usize),
    ) {
        let (count, width) = (self.rows.len(), tiles.width());
        let (blocks, groups) = (count.div_ceil(SIDE), count.div_ceil(ROWS));
        assert!(
            tiles.columns == VECTORS * SIDE
                && depth(part) * SIDE <= STRETCH
                && tiles.columns * STRETCH <= self.workspace.panel.len()
                && blocks * BLOCK <= self.workspace.rows.len()
                && blocks * SIDE * width <= self.workspace.sums.len(),
            "a band of rows does not fit its tiles. This is a bug."
        );
        for group in 0..groups {
            let share = tiles.columns * group / groups..tiles.columns * (group + 1) / groups;
            self.fetch_columns(simd, tiles, after, share);
            let block = group * ROWS / SIDE;
            // SAFETY: as was asserted: each block of rows has its tiles, the columns have theirs, and both together
            // their sums, which are this thread's own.
            unsafe {
                let panel = self.workspace.panel.as_ptr();
                let begin = block * SIDE * width + index * tiles.columns;
                let product = TileProduct {
                    left: self.workspace.rows.as_ptr().add(block * BLOCK),
                    left_block: BLOCK,
                    right: [panel, panel.add(SIDE)],
                    right_step: tiles.columns,
                    taps: ONE_TAP,
                    depth: depth(part),
                    sums: self.workspace.sums.as_mut_ptr().add(begin),
                    sums_step: width,
                    add: part.first > 0,
                };
                match blocks - block {
                    1 => simd.multiply_tiles::<1, 2>(&product),
                    _ => simd.multiply_tiles::<2, 2>(&product),
                }
            }
        }
        const { assert!(TILE == SIDE * SIDE && BLOCK == STRETCH / SIDE * TILE) }
    }

    /// Fetches some `columns` of a tile of a bf16 weight. A quantised one is fetched while it is decoded.
    #[inline(always)]
    fn fetch_columns<S: Simd>(
        &self,
        simd: S,
        tiles: Tiles,
        (part, index): (Part, usize),
        columns: Range<usize>,
    ) {
        let Weight::Values(Values::Bf16(weight)) = self.projection.weight else {
            return;
        };
        for column in columns {
            let (row, rows) = self.weight_rows::<S>(tiles, index, column / SIDE);
            if column % SIDE >= rows {
                continue;
            }
            let begin = (row + column % SIDE) * self.projection.inputs + part.first;
            let from = weight.as_ptr().wrapping_add(begin).cast::<u8>();
            for byte in (0..2 * part.count).step_by(LINE_BYTES) {
                simd.prefetch(from.wrapping_add(byte));
            }
        }
    }
}

/// The tiles of a part of a row. There is one even of no values.
fn depth(part: Part) -> usize {
    part.steps.div_ceil(SIDE).max(1)
}
