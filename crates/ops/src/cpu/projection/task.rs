//! A task of the GEMM: a band of rows by a panel of the weight.

use std::ops::Range;

use super::super::buffers::{aligned_length, split_aligned};
use super::super::elements::{elements, lay, numbers};
use super::super::kernel::Values;
use super::super::simd::{Kernel, MOST_LANES, Simd};
use super::super::target::Target;
use super::Projection;
use super::blocks::{self, Blocks, PART, Panel, UNITS};
use super::epilogue::{Epilogue, Position, finish};
use super::nibbles;
use super::pack::{Stretch, pack};
use super::partition::{BAND_ROWS, PANEL_COLUMNS, ROW_STEP, STRETCH, stretch};
use super::quantized_rows::QuantizedRows;
use super::tile::{self, FETCHED, Rows, Sums, VECTORS};

/// The most rows that are read in place: each needs a register for its address. More rows are packed.
const MOST_IN_PLACE: usize = 6;

/// The most columns of a tile.
const MOST_COLUMNS: usize = VECTORS * MOST_LANES;

const _: () = assert!(MOST_COLUMNS * (Panel::WORDS + Panel::HEADERS) <= Workspace::PANEL);

/// The scratch buffers of a task.
pub(super) struct Workspace<'a> {
    /// A packed stretch of the panel; for a quantised weight a packed stretch of a tile, words before
    /// headers.
    panel: &'a mut [f32],
    /// A packed stretch of a few rows.
    rows: &'a mut [f32],
    /// The accumulators.
    sums: &'a mut [f32],
}

impl<'a> Workspace<'a> {
    const PANEL: usize = PANEL_COLUMNS * STRETCH;
    const ROWS: usize = ROW_STEP * STRETCH;
    // The last tile may have more rows than are left.
    const SUMS: usize = PANEL_COLUMNS * (BAND_ROWS + ROW_STEP);
    const LENGTHS: [usize; 3] = [Self::PANEL, Self::ROWS, Self::SUMS];
    /// Floats of all buffers.
    pub(super) const LENGTH: usize = aligned_length(Self::LENGTHS);

    /// Splits `scratch`, of [`LENGTH`](Self::LENGTH) floats.
    pub(super) fn new(scratch: &'a mut [f32]) -> Self {
        let [panel, rows, sums] = split_aligned(scratch, Self::LENGTHS);
        Self { panel, rows, sums }
    }
}

/// All rows, and the weight.
#[derive(Clone, Copy)]
pub(super) enum Product<'a> {
    Values(&'a [f32], Values<'a>),
    Blocks(&'a QuantizedRows, Blocks<'a>),
}

/// A task of the GEMM: a band of rows by a panel of the weight.
pub(super) struct Task<'a> {
    pub(super) product: Product<'a>,
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
        match self.product {
            Product::Values(x, weight @ Values::Bf16(_)) if S::HAS_BF16_DOT => {
                self.multiply::<S, true>(simd, tiles, x, weight);
            }
            Product::Values(x, weight) => self.multiply::<S, false>(simd, tiles, x, weight),
            Product::Blocks(x, weight) => self.multiply_blocks(simd, tiles, x, weight),
        }
        self.finish(simd, tiles);
    }
}

/// The tiles of a panel: those of its result columns, then with two products per result those of the second.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    /// Columns of a tile.
    columns: usize,
    /// Tiles of one product.
    a_section: usize,
    /// All tiles.
    count: usize,
}

impl Tiles {
    fn new<S: Simd>(columns: usize, products: usize) -> Self {
        let a_tile = VECTORS * S::LANES;
        let a_section = columns.div_ceil(a_tile);
        Self {
            columns: a_tile,
            a_section,
            count: a_section * products,
        }
    }

    /// Floats from one row of sums to the next.
    fn width(self) -> usize {
        self.count * self.columns
    }
}

/// A stretch of the inner dimension.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// The first value.
    first: usize,
    /// Values.
    count: usize,
    /// Elements.
    steps: usize,
}

/// A stretch of the inner dimension with a quantised weight, in parts.
#[derive(Debug, Clone, Copy)]
struct Parts {
    first: usize,
    count: usize,
}

impl Task<'_> {
    /// Accumulates all products.
    #[inline(always)]
    fn multiply<S: Simd, const PAIRS: bool>(&mut self, simd: S, tiles: Tiles, x: &[f32], weight: Values<'_>) {
        let inputs = self.projection.inputs;
        let element = numbers::<PAIRS>();
        let part = element * stretch(elements::<PAIRS>(inputs));
        // With no inputs the accumulators must be written as 0.
        for first in (0..inputs.max(1)).step_by(part) {
            let count = part.min(inputs - first);
            let part = Part {
                first,
                count,
                steps: elements::<PAIRS>(count),
            };
            self.pack::<S, PAIRS>(simd, tiles, weight, part);
            let mut row = self.rows.start;
            while row < self.rows.end {
                row += self.group::<S, PAIRS>(simd, tiles, x, part, row);
            }
        }
    }

    /// Packs a stretch of the panel.
    #[inline(always)]
    fn pack<S: Simd, const PAIRS: bool>(&mut self, simd: S, tiles: Tiles, weight: Values<'_>, part: Part) {
        for index in 0..tiles.count {
            for vector in 0..VECTORS {
                let rows = self.weight_rows::<S>(tiles, index, vector);
                let values = (part.first, part.count);
                let position = index * tiles.columns * STRETCH + vector * S::LANES;
                let stretch = Stretch::new(weight, self.projection.inputs, rows, values, PAIRS);
                pack(
                    simd,
                    stretch,
                    &mut self.workspace.panel[position..],
                    tiles.columns,
                );
            }
        }
    }

    /// The rows of the weight (first and count) that are the columns of a vector of the tile at `index`.
    #[inline(always)]
    fn weight_rows<S: Simd>(&self, tiles: Tiles, index: usize, vector: usize) -> (usize, usize) {
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

    /// Accumulates all products with a quantised weight.
    #[inline(always)]
    fn multiply_blocks<S: Simd>(&mut self, simd: S, tiles: Tiles, x: &QuantizedRows, weight: Blocks<'_>) {
        // A tile's 4-bit integers stay in the L1 cache: the L2 cache is slower than the multiplications.
        for index in 0..tiles.count {
            match weight.quantization.planes() {
                1 => self.multiply_planes::<S, 1>(simd, tiles, index, x, weight),
                _ => self.multiply_planes::<S, 2>(simd, tiles, index, x, weight),
            }
        }
    }

    /// Accumulates all products of the tile at `index`.
    #[inline(always)]
    fn multiply_planes<S: Simd, const PLANES: usize>(
        &mut self,
        simd: S,
        tiles: Tiles,
        index: usize,
        x: &QuantizedRows,
        weight: Blocks<'_>,
    ) {
        let inputs = self.projection.inputs;
        let stretch = UNITS * weight.quantization.unit_values();
        for first in (0..inputs.max(1)).step_by(stretch) {
            let count = stretch.min(inputs - first);
            for vector in 0..VECTORS {
                let rows = self.weight_rows::<S>(tiles, index, vector);
                let (words, headers) = self.workspace.panel.split_at_mut(tiles.columns * Panel::WORDS);
                let panel = Panel {
                    words: &mut words[vector * S::LANES..],
                    headers: &mut headers[vector * S::LANES..],
                    step: tiles.columns,
                };
                blocks::pack(simd, weight, inputs, rows, (first, count), panel);
            }
            let parts = Parts {
                first: first / PART,
                count: count / PART,
            };
            let mut row = self.rows.start;
            while row < self.rows.end {
                // A row has an accumulator for each plane.
                row += match (self.rows.end - row, S::REGISTERS / PLANES) {
                    (8.., 32..) => self.multiply_quantized::<S, 8, PLANES>(simd, tiles, index, x, parts, row),
                    (4.., 16..) => self.multiply_quantized::<S, 4, PLANES>(simd, tiles, index, x, parts, row),
                    (2.., _) => self.multiply_quantized::<S, 2, PLANES>(simd, tiles, index, x, parts, row),
                    _ => self.multiply_quantized::<S, 1, PLANES>(simd, tiles, index, x, parts, row),
                };
            }
        }
    }

    /// Multiplies `ROWS` rows from `row` on by the packed stretch of the tile at `index`. Returns `ROWS`.
    #[inline(always)]
    fn multiply_quantized<S: Simd, const ROWS: usize, const PLANES: usize>(
        &mut self,
        simd: S,
        tiles: Tiles,
        index: usize,
        x: &QuantizedRows,
        parts: Parts,
        row: usize,
    ) -> usize {
        let a_row = self.projection.inputs / PART;
        let begin = row * a_row + parts.first;
        let rows = nibbles::Rows {
            words: x.words(begin).as_ptr(),
            scales: x.scales(begin).as_ptr(),
            step: a_row,
        };
        let (words, headers) = self.workspace.panel.split_at(tiles.columns * Panel::WORDS);
        let columns = nibbles::Columns {
            words: words.as_ptr(),
            headers: headers.as_ptr(),
        };
        let begin = (row - self.rows.start) * tiles.width() + index * tiles.columns;
        let to = &mut self.workspace.sums[begin..][..(ROWS - 1) * tiles.width() + tiles.columns];
        let sums = Sums {
            to: to.as_mut_ptr(),
            step: tiles.width(),
            add: parts.first > 0,
        };
        // SAFETY: the band has as many rows and the panel as many columns of as many parts; the sums are as
        // long as they must be, and this thread's own.
        unsafe { nibbles::tile::<S, ROWS, PLANES>(simd, parts.count, rows, columns, sums) };
        ROWS
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
