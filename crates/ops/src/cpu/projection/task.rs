//! A task of the GEMM: a band of rows by a panel of the weight.

use std::ops::Range;

use super::super::buffers::{aligned_length, split_aligned};
use super::super::elements::{elements, lay, numbers};
use super::super::simd::{InstructionSet, Kernel, Simd};
use super::super::target::Target;
use super::epilogue::{Epilogue, Position, finish};
use super::pack::{Stretch, pack};
use super::partition::{Limits, STRETCH};
use super::quantized::{Decoded, pack_quantized};
use super::tile::{self, FETCHED, Rows, Sums, VECTORS};
use super::{Projection, Weight};

/// The most rows that are read in place: each needs a register for its address. More rows are packed.
const MOST_IN_PLACE: usize = 6;

/// The rows of a tile on a CPU with many registers.
const ROW_STEP: usize = Limits::VECTORS.row_step;

/// Floats behind a row of sums of a matrix unit: the rows of its tiles would share the places of a cache.
const PADDING: usize = 16;

/// The scratch buffers of a task.
pub(super) struct Workspace<'a> {
    /// A packed stretch of columns of the panel.
    pub(super) panel: &'a mut [f32],
    /// Some decoded values of a quantised weight.
    decoded: &'a mut [f32],
    /// A stretch of rows, laid out.
    pub(super) rows: &'a mut [f32],
    /// The accumulators.
    pub(super) sums: &'a mut [f32],
}

impl<'a> Workspace<'a> {
    const fn lengths(limits: Limits) -> [usize; 4] {
        [
            limits.packed_columns * limits.stretch,
            Decoded::LENGTH,
            limits.laid_rows * limits.stretch,
            (limits.panel_columns + PADDING) * limits.rows_of_sums(),
        ]
    }

    /// Floats of all buffers.
    pub(super) const fn length(limits: Limits) -> usize {
        aligned_length(Self::lengths(limits))
    }

    /// Splits `scratch`, of [`length`](Self::length) floats.
    pub(super) fn new(scratch: &'a mut [f32], limits: Limits) -> Self {
        let [panel, decoded, rows, sums] = split_aligned(scratch, Self::lengths(limits));
        Self {
            panel,
            decoded,
            rows,
            sums,
        }
    }
}

/// A task of the GEMM: a band of rows by a panel of the weight.
pub(super) struct Task<'a> {
    /// The instruction set that the task runs with.
    pub(super) set: InstructionSet,
    /// All rows.
    pub(super) x: &'a [f32],
    pub(super) projection: Projection<'a>,
    pub(super) epilogue: Epilogue<'a>,
    /// Rows of the results.
    pub(super) rows: Range<usize>,
    /// Columns of the results.
    pub(super) columns: Range<usize>,
    /// All results.
    pub(super) target: Target,
    pub(super) workspace: Workspace<'a>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let tiles = Tiles::new::<S>(self.columns.len(), self.epilogue.products());
        let tiles = match self.projection.weight.is_narrow() && S::HAS_TILES {
            true => tiles.padded(),
            false => tiles,
        };
        let few = self.has_few_rows::<S>(tiles);
        match self.projection.weight.is_narrow() {
            true if S::HAS_TILES => self.multiply_on_unit(simd, tiles),
            true if S::HAS_BF16_DOT && few => self.multiply_few::<S, true>(simd, tiles),
            true if few => self.multiply_few::<S, false>(simd, tiles),
            true if S::HAS_BF16_DOT => self.multiply::<S, true>(simd, tiles),
            _ => self.multiply::<S, false>(simd, tiles),
        }
        self.finish(simd, tiles);
    }
}

/// The tiles of a panel: those of its result columns, then with two products per result those of the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    /// Columns of a tile.
    pub(super) columns: usize,
    /// Tiles of one product.
    a_section: usize,
    /// All tiles.
    pub(super) count: usize,
    /// Floats behind a row of sums.
    padding: usize,
}

impl Tiles {
    fn new<S: Simd>(columns: usize, products: usize) -> Self {
        let a_tile = VECTORS * S::LANES;
        let a_section = columns.div_ceil(a_tile);
        Self {
            columns: a_tile,
            a_section,
            count: a_section * products,
            padding: 0,
        }
    }

    /// The same with padding behind the rows of sums.
    fn padded(self) -> Self {
        Self {
            padding: PADDING,
            ..self
        }
    }

    /// Floats from one row of sums to the next.
    pub(super) fn width(self) -> usize {
        self.count * self.columns + self.padding
    }
}

/// A stretch of the inner dimension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The first value.
    pub(super) first: usize,
    /// Values.
    pub(super) count: usize,
    /// Elements.
    pub(super) steps: usize,
}

impl Task<'_> {
    /// Accumulates all products.
    #[inline(always)]
    fn multiply<S: Simd, const PAIRS: bool>(&mut self, simd: S, tiles: Tiles) {
        let (x, inputs) = (self.x, self.projection.inputs);
        let element = numbers::<PAIRS>();
        let part = element * Limits::VECTORS.stretch_of(elements::<PAIRS>(inputs));
        // With no inputs the accumulators must be written as 0.
        for first in (0..inputs.max(1)).step_by(part) {
            let count = part.min(inputs - first);
            let part = Part {
                first,
                count,
                steps: elements::<PAIRS>(count),
            };
            for index in 0..tiles.count {
                self.pack::<S, PAIRS>(simd, tiles, part, index, index * tiles.columns * STRETCH);
            }
            let mut row = self.rows.start;
            while row < self.rows.end {
                row += self.group::<S, PAIRS>(simd, tiles, x, part, row);
            }
        }
    }

    /// Packs a stretch of the columns of the tile at `index`, to `position` of the panel.
    #[inline(always)]
    pub(super) fn pack<S: Simd, const PAIRS: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        part: Part,
        index: usize,
        position: usize,
    ) {
        for vector in 0..VECTORS {
            let rows = self.weight_rows::<S>(tiles, index, vector);
            let values = (part.first, part.count);
            let to = &mut self.workspace.panel[position + vector * S::LANES..];
            match self.projection.weight {
                Weight::Values(weight) => {
                    let stretch = Stretch::new(weight, self.projection.inputs, rows, values, PAIRS);
                    pack(simd, stretch, to, tiles.columns);
                }
                Weight::Quantized(weight) => {
                    let decoded = Decoded {
                        set: self.set,
                        scratch: self.workspace.decoded,
                    };
                    pack_quantized::<S, PAIRS>(simd, weight, decoded, rows, values, (to, tiles.columns));
                }
            }
        }
    }

    /// The rows of the weight (first and count) that are the columns of a vector of the tile at `index`.
    #[inline(always)]
    pub(super) fn weight_rows<S: Simd>(&self, tiles: Tiles, index: usize, vector: usize) -> (usize, usize) {
        let results = self.projection.outputs / self.epilogue.products();
        let (section, tile) = (index / tiles.a_section, index % tiles.a_section);
        let column = self.columns.start + tile * tiles.columns + vector * S::LANES;
        let rows = S::LANES.min(self.columns.end.saturating_sub(column));
        (section * results + column, rows)
    }

    /// Multiplies as many rows from `row` on as a tile has. Returns their number.
    #[inline(always)]
    fn group<S: Simd, const PAIRS: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        x: &[f32],
        part: Part,
        row: usize,
    ) -> usize {
        // Accumulators fill the registers, except those for a row's value and the weight's vectors.
        match (self.rows.end - row, S::REGISTERS) {
            (1, _) => self.rows::<S, 1, PAIRS>(simd, tiles, x, part, row),
            (2, _) => self.rows::<S, 2, PAIRS>(simd, tiles, x, part, row),
            (3..=4, _) => self.rows::<S, 4, PAIRS>(simd, tiles, x, part, row),
            (_, ..32) => self.rows::<S, 6, PAIRS>(simd, tiles, x, part, row),
            (5..=8, _) => self.rows::<S, 8, PAIRS>(simd, tiles, x, part, row),
            _ => self.rows::<S, ROW_STEP, PAIRS>(simd, tiles, x, part, row),
        }
    }

    /// Multiplies at most `ROWS` rows from `row` on.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const PAIRS: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        x: &[f32],
        part: Part,
        row: usize,
    ) -> usize {
        let inputs = self.projection.inputs;
        let count = ROWS.min(self.rows.end - row);
        let begin = row * inputs + part.first;
        let rows = if PAIRS || ROWS > MOST_IN_PLACE {
            for (index, to) in self
                .workspace
                .rows
                .chunks_exact_mut(STRETCH)
                .enumerate()
                .take(count)
            {
                let begin = begin + index * inputs;
                lay::<S, PAIRS>(simd, &x[begin..begin + part.count], None, &mut to[..part.steps]);
            }
            Rows::laid::<ROWS>(self.workspace.rows[..ROWS * STRETCH].as_ptr())
        } else {
            Rows {
                first: x[begin..begin + (count - 1) * inputs + part.count].as_ptr(),
                step: inputs,
                count,
            }
        };
        let next = x.as_ptr().wrapping_add(begin + count * inputs);
        let mut index = 0;
        while index < tiles.count {
            let next = next.wrapping_add(index * FETCHED * inputs);
            // Few accumulators would wait for each other.
            index += match (ROWS, tiles.count - index) {
                (1, 4..) => {
                    self.multiply_tiles::<S, ROWS, 4, PAIRS>(simd, tiles, part, row, index, (rows, next))
                }
                (1 | 2, 2..) => {
                    self.multiply_tiles::<S, ROWS, 2, PAIRS>(simd, tiles, part, row, index, (rows, next))
                }
                _ => self.multiply_tiles::<S, ROWS, 1, PAIRS>(simd, tiles, part, row, index, (rows, next)),
            };
        }
        count
    }

    /// Multiplies `rows`, of which the first is `row`, by `TILES` tiles from the one at `index` on, and
    /// prefetches from `next` on. Returns `TILES`.
    #[inline(always)]
    fn multiply_tiles<S: Simd, const ROWS: usize, const TILES: usize, const PAIRS: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        part: Part,
        row: usize,
        index: usize,
        (rows, next): (Rows, *const f32),
    ) -> usize {
        let a_panel = tiles.columns * STRETCH;
        let panels =
            &self.workspace.panel[index * a_panel..][..(TILES - 1) * a_panel + part.steps * tiles.columns];
        let begin = (row - self.rows.start) * tiles.width() + index * tiles.columns;
        let to = &mut self.workspace.sums[begin..][..(ROWS - 1) * tiles.width() + TILES * tiles.columns];
        // SAFETY: the rows, the panels and the sums are as long as they must be, and this thread's own.
        unsafe {
            tile::tiles::<S, ROWS, TILES, PAIRS>(
                simd,
                part.steps,
                rows,
                panels.as_ptr(),
                Sums {
                    to: to.as_mut_ptr(),
                    step: tiles.width(),
                    add: part.first > 0,
                },
                next,
                self.projection.inputs,
            );
        }
        TILES
    }

    /// Runs the epilogue and writes the results.
    #[inline(always)]
    fn finish<S: Simd>(self, simd: S, tiles: Tiles) {
        let width = self.projection.outputs / self.epilogue.products();
        for row in self.rows.clone() {
            let sums = &self.workspace.sums[(row - self.rows.start) * tiles.width()..][..tiles.width()];
            let position = Position {
                row,
                column: self.columns.start,
                width,
            };
            let sums = sums.split_at(tiles.a_section * tiles.columns);
            let to = self
                .target
                .at(row * width + self.columns.start)
                .block(1, self.columns.len());
            // SAFETY: the target lives while tasks run, and these results are no other's.
            unsafe {
                finish(
                    simd,
                    self.epilogue,
                    position,
                    sums,
                    self.projection.bias,
                    to,
                    self.columns.len(),
                );
            }
        }
    }
}
