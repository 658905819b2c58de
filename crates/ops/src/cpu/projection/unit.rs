//! The products of a task on a matrix unit.

use super::super::buffers::LINE;
use super::super::elements::{elements, lay_in_tiles};
use super::super::simd::Simd;
use super::super::simd::tiles::{ONE_TAP, SIDE, TILE, TileProduct, TileUnit};
use super::partition::{Limits, STRETCH, stretch};
use super::task::{Part, Task, Tiles};

/// Rows of a group, which is multiplied by a whole panel.
const ROWS: usize = Limits::TILES.row_step;

impl Task<'_> {
    /// Accumulates all products.
    #[inline(always)]
    pub(super) fn multiply_on_unit<S: Simd>(&mut self, simd: S, tiles: Tiles) {
        let inputs = self.projection.inputs;
        let _unit = TileUnit::new(simd);
        let part = 2 * stretch(elements::<true>(inputs));
        // With no inputs the accumulators must be written as 0.
        for first in (0..inputs.max(1)).step_by(part) {
            let count = part.min(inputs - first);
            let part = Part {
                first,
                count,
                steps: elements::<true>(count),
            };
            if part.steps == 0 {
                self.workspace.panel.fill(0.0);
            }
            self.pack::<S, true>(simd, tiles, part);
            for row in self.rows.clone().step_by(ROWS) {
                self.multiply_group(simd, tiles, part, row);
            }
        }
    }

    /// Multiplies the group of rows from `row` on.
    #[inline(always)]
    fn multiply_group<S: Simd>(&mut self, simd: S, tiles: Tiles, part: Part, row: usize) {
        const BLOCK: usize = SIDE * STRETCH;
        let (inputs, depth) = (self.projection.inputs, part.steps.div_ceil(SIDE).max(1));
        let count = ROWS.min(self.rows.end - row);
        for index in 0..count {
            let from = &self.x[(row + index) * inputs + part.first..][..part.count];
            let to = &mut self.workspace.rows[index / SIDE * BLOCK + index % SIDE * SIDE..];
            lay_in_tiles(simd, from, None, depth, to);
        }
        let width = tiles.width();
        let begin = (row - self.rows.start) * width;
        let blocks = count.div_ceil(SIDE);
        assert!(
            tiles.columns == 2 * SIDE
                && depth * SIDE <= STRETCH
                && tiles.count * tiles.columns * STRETCH <= self.workspace.panel.len()
                && blocks * BLOCK <= self.workspace.rows.len()
                && begin + blocks * SIDE * width <= self.workspace.sums.len(),
            "a group of rows does not fit its tiles. This is a bug."
        );
        for index in 0..tiles.count {
            self.fetch(simd, part, row + ROWS, (index, tiles.count));
            // SAFETY: as was asserted: each tile of columns has its panel, each block of rows its tiles, and both
            // together their sums, which are this thread's own.
            unsafe {
                let panel = self.workspace.panel.as_ptr().add(index * tiles.columns * STRETCH);
                let product = TileProduct {
                    left: self.workspace.rows.as_ptr(),
                    left_block: BLOCK,
                    right: [panel, panel.add(SIDE)],
                    right_step: tiles.columns,
                    taps: ONE_TAP,
                    depth,
                    sums: self
                        .workspace
                        .sums
                        .as_mut_ptr()
                        .add(begin + index * tiles.columns),
                    sums_step: width,
                    add: part.first > 0,
                };
                match blocks {
                    1 => simd.multiply_tiles::<1, 2>(&product),
                    _ => simd.multiply_tiles::<2, 2>(&product),
                }
            }
        }
        const { assert!(TILE == SIDE * SIDE && BLOCK == STRETCH / SIDE * TILE) }
    }

    /// Prefetches a share of the group of rows from `row` on: the part at `index` of `count`.
    #[inline(always)]
    fn fetch<S: Simd>(&self, simd: S, part: Part, row: usize, (index, count): (usize, usize)) {
        let (first, end) = (row + ROWS * index / count, row + ROWS * (index + 1) / count);
        for row in first..end.min(self.rows.end) {
            let from = self
                .x
                .as_ptr()
                .wrapping_add(row * self.projection.inputs + part.first);
            for line in (0..part.count).step_by(LINE) {
                simd.prefetch(from.wrapping_add(line).cast());
            }
        }
    }
}
