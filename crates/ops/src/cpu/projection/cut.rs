//! How the work of a projection is cut, by its shape alone.

use std::ops::Range;

/// The most rows of activations in a band.
pub(super) const BAND_ROWS: usize = 560;
/// Rows of all bands but the last are a multiple of this, the most rows of a tile.
pub(super) const ROW_STEP: usize = 14;
/// The most columns of a panel of the weight, and of those halved: multiples of every tile's columns.
pub(super) const PANEL_COLUMNS: usize = 128;
/// The least columns of a panel.
const LEAST_COLUMNS: usize = 32;
/// The least rows of bands that are cut further: for each of them the panel is laid out anew.
const LEAST_ROWS: usize = 8 * ROW_STEP;
/// The most values of a weight that is cheaper to lay out for several bands than rows are to go through for several panels.
const SMALL_WEIGHT: usize = 1 << 17;
/// So many tasks are made where panels can be narrow enough, or bands low enough, so that no thread waits long for the last.
const ENOUGH_TASKS: usize = 24;
/// The least multiplications of a task, of those that are made so: some microseconds of them. Narrower panels would take as long
/// to be begun with.
const LEAST_PRODUCTS: usize = 1 << 21;
/// The most elements, values or pairs of values, that are summed at a time.
pub(super) const STRETCH: usize = 512;
/// Elements that are summed at a time are a multiple of this, unless they are the last.
const STRETCH_STEP: usize = 32;

/// A matrix of results in tasks of a band of rows by a panel of columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    rows: usize,
    columns: usize,
    band: usize,
    panel: usize,
}

impl Cut {
    /// Results of `rows` by `columns`, for each of which `products` columns of the weight are multiplied by `inputs` values.
    pub(super) fn new(rows: usize, columns: usize, products: usize, inputs: usize) -> Self {
        let all = rows * columns * products * inputs;
        let enough = ENOUGH_TASKS.min(all / LEAST_PRODUCTS);
        let mut bands = rows.div_ceil(BAND_ROWS).max(1);
        let mut panel = PANEL_COLUMNS / products;
        if columns * products * inputs <= SMALL_WEIGHT {
            bands = bands.max(enough.min(rows / LEAST_ROWS));
        }
        while panel * products > LEAST_COLUMNS && bands * columns.div_ceil(panel) < enough {
            panel /= 2;
        }
        let wanted = enough.div_ceil(columns.div_ceil(panel).max(1));
        bands = bands.max(wanted.min(rows / LEAST_ROWS));
        Self {
            rows,
            columns,
            band: rows.div_ceil(bands).max(1).next_multiple_of(ROW_STEP),
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

/// Elements of a sum of `length` of them that are taken at a time.
pub(super) fn stretch(length: usize) -> usize {
    length
        .div_ceil(length.div_ceil(STRETCH).max(1))
        .next_multiple_of(STRETCH_STEP)
        .max(STRETCH_STEP)
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
            let cut = Cut::new(rows, columns, products, inputs);
            let mut seen = vec![0; rows * columns];
            for task in 0..cut.tasks() {
                let (of_rows, of_columns) = cut.task(task);
                assert!(of_rows.len() <= BAND_ROWS && products * of_columns.len() <= PANEL_COLUMNS);
                for row in of_rows {
                    for column in of_columns.clone() {
                        seen[row * columns + column] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn stretches_are_nearly_equal() {
        assert_eq!(
            [0, 1, 320, 513, 2432, 9728].map(stretch),
            [32, 32, 320, 288, 512, 512]
        );
    }
}
