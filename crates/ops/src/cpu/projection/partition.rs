//! Partition of a GEMM into tasks. No result depends on it: each is summed in the order of the elements, in one task.

use std::ops::Range;

/// The most of a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows in a band.
    pub(super) band_rows: usize,
    /// Bands, except the last, have a multiple of this many rows, the rows of the largest tile.
    pub(super) row_step: usize,
    /// Columns of a panel. It and its halves are multiples of every tile's columns.
    pub(super) panel_columns: usize,
    /// Columns of a panel that are packed before they are multiplied.
    pub(super) packed_columns: usize,
    /// Rows of a band that are laid out before they are multiplied.
    pub(super) laid_rows: usize,
    /// The most elements (values or pairs of values) of a stretch, summed at a time.
    pub(super) stretch: usize,
    /// Tasks for each thread that are enough for an even load.
    tasks_a_thread: usize,
}

impl Limits {
    /// Of products of vectors.
    pub(super) const VECTORS: Self = Self {
        band_rows: 560,
        row_step: 14,
        panel_columns: 128,
        packed_columns: 128,
        laid_rows: 14,
        stretch: STRETCH,
        tasks_a_thread: ENOUGH_TASKS,
    };
    /// Of products of a matrix unit, which is so fast that packing counts, and reading from an L2 cache. So all rows of a
    /// band are laid out once for all columns of a panel, and stay in an L2 cache of 2 MB with the sums. A stretch is so
    /// short that the packed columns, a tile's, stay in an L1 cache.
    pub(super) const TILES: Self = Self {
        band_rows: 448,
        row_step: 32,
        panel_columns: 512,
        packed_columns: 32,
        laid_rows: 448,
        stretch: 128,
        tasks_a_thread: 4,
    };

    /// Elements of a stretch for an inner dimension of `length` elements.
    pub(super) fn stretch_of(self, length: usize) -> usize {
        length
            .div_ceil(length.div_ceil(self.stretch).max(1))
            .next_multiple_of(STRETCH_STEP)
            .max(STRETCH_STEP)
    }

    /// The most rows of sums. The last tile of vectors may have more rows than are left of a band; the rows that a matrix
    /// unit has laid out are whole tiles.
    pub(super) const fn rows_of_sums(self) -> usize {
        match self.laid_rows == self.band_rows {
            true => self.band_rows,
            false => self.band_rows + self.row_step,
        }
    }

    /// The fewest rows of a band in a finer partition: the panel is packed again for each band.
    const fn least_rows(self) -> usize {
        8 * self.row_step
    }
}

/// The fewest columns of a panel.
const LEAST_COLUMNS: usize = 32;
/// Largest weight, in values, for which more bands are cheaper than more panels.
const SMALL_WEIGHT: usize = 1 << 17;
/// Tasks that are enough for an even load on any number of threads, where panels can be narrow or bands low enough.
const ENOUGH_TASKS: usize = 24;
/// The fewest multiplications of a task in a finer partition, a few microseconds' worth.
const LEAST_PRODUCTS: usize = 1 << 21;
/// The most elements of a stretch of products of vectors.
pub(super) const STRETCH: usize = 512;
/// Stretches, except the last, have a multiple of this many elements.
const STRETCH_STEP: usize = 32;

/// Partition of the result matrix into tasks: a band of rows by a panel of columns each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition {
    rows: usize,
    columns: usize,
    band: usize,
    panel: usize,
}

impl Partition {
    /// The partition for `threads` of `rows` by `columns` results, each of which is the dot product of `inputs` values with
    /// `products` columns of the weight.
    pub(super) fn new(
        limits: Limits,
        threads: usize,
        (rows, columns): (usize, usize),
        products: usize,
        inputs: usize,
    ) -> Self {
        let all = rows * columns * products * inputs;
        let enough = ENOUGH_TASKS
            .min(limits.tasks_a_thread * threads)
            .min(all / LEAST_PRODUCTS);
        let mut bands = rows.div_ceil(limits.band_rows).max(1);
        let mut panel = limits.panel_columns / products;
        if columns * products * inputs <= SMALL_WEIGHT {
            bands = bands.max(enough.min(rows / limits.least_rows()));
        }
        while panel * products > LEAST_COLUMNS && bands * columns.div_ceil(panel) < enough {
            panel /= 2;
        }
        let wanted = enough.div_ceil(columns.div_ceil(panel).max(1));
        bands = bands.max(wanted.min(rows / limits.least_rows()));
        Self {
            rows,
            columns,
            band: rows.div_ceil(bands).max(1).next_multiple_of(limits.row_step),
            panel,
        }
    }

    pub(super) fn tasks(&self) -> usize {
        self.rows.div_ceil(self.band) * self.columns.div_ceil(self.panel)
    }

    /// The rows and columns of a task.
    pub(super) fn task(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let panels = self.columns.div_ceil(self.panel);
        let (row, column) = (index / panels * self.band, index % panels * self.panel);
        (
            row..self.rows.min(row + self.band),
            column..self.columns.min(column + self.panel),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_belongs_to_one_task() {
        for (rows, columns, products, inputs) in [
            (1, 1, 1, 1),
            (0, 5, 1, 9),
            (15, 33, 2, 1 << 20),
            (561, 2432, 1, 2432),
            (1357, 300, 2, 40),
            (512, 160, 1, 640),
            (8192, 40, 1, 0),
        ] {
            for (limits, threads) in [(Limits::VECTORS, 2), (Limits::TILES, 2), (Limits::TILES, 16)] {
                let partition = Partition::new(limits, threads, (rows, columns), products, inputs);
                let mut seen = vec![0; rows * columns];
                for task in 0..partition.tasks() {
                    let (of_rows, of_columns) = partition.task(task);
                    assert!(
                        of_rows.len() <= limits.band_rows
                            && products * of_columns.len() <= limits.panel_columns
                    );
                    for row in of_rows {
                        for column in of_columns.clone() {
                            seen[row * columns + column] += 1;
                        }
                    }
                }
                assert!(seen.iter().all(|&times| times == 1));
            }
        }
    }

    #[test]
    fn stretches_are_nearly_equal() {
        assert_eq!(
            [0, 1, 320, 513, 2432, 9728].map(|length| Limits::VECTORS.stretch_of(length)),
            [32, 32, 320, 288, 512, 512]
        );
    }
}
