//! Updates that are added to a tensor while it is read: products of matrices, and magnitudes.
//!
//! A tensor is updated a stretch of whole rows at a time, so that the difference is never in memory as a
//! whole.

mod decomposition;
mod difference;
mod product;
mod rows;

use std::fmt;

use rayon::prelude::*;

pub(crate) use decomposition::{Decomposition, Magnitudes};
pub(crate) use difference::{Difference, Matrix};
pub(crate) use product::Product;
pub(crate) use rows::RowMove;

use crate::Result;

/// The number of values of a tensor that are converted and updated at a time, unless a single row has more.
const STRETCH: usize = 1 << 20;
/// The number of values that a thread updates at a time, unless a single row has more.
const TASK: usize = 1 << 16;

/// The updates that a checkpoint adds to its tensors while they are read.
pub(crate) trait TensorUpdates: fmt::Debug + Send + Sync {
    /// Whether the tensor `name` has an update.
    fn updates(&self, name: &str) -> bool;

    /// The update of the tensor `name`, or `None` where the tensor stays as it is stored.
    ///
    /// # Errors
    /// The matrices of the update cannot be read.
    fn update(&self, name: &str) -> Result<Option<WeightUpdate>>;

    /// Checks that the files of the updates were not written to since they were opened.
    ///
    /// # Errors
    /// A file has changed.
    fn check_unchanged(&self) -> Result<()>;
}

/// The update of one tensor.
#[derive(Debug)]
pub(crate) struct WeightUpdate {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// What is done to the tensor, in order.
    pub(crate) steps: Vec<Step>,
}

/// A part of an update.
#[derive(Debug)]
pub(crate) enum Step {
    /// A difference is added.
    Add(Difference),
    /// A difference is added, and magnitudes are set.
    Decompose(Decomposition),
}

/// The number of values of a tensor of `rows` by `columns` that are updated at a time.
pub(crate) fn stretch(rows: usize, columns: usize) -> usize {
    (rows * columns).min((STRETCH / columns).max(1) * columns)
}

/// The number of rows of `columns` values that a thread updates at a time.
pub(crate) fn task_rows(columns: usize) -> usize {
    (TASK / columns).max(1)
}

impl WeightUpdate {
    /// Fills `values` with the updated values of the tensor from index `first` on. `read` fills a slice with
    /// the stored values from an index on. `narrow` rounds a value to the type that the tensor is held in.
    ///
    /// The tensor is always split into the same stretches, so that a part has the bits of the whole.
    ///
    /// # Errors
    /// `read` fails.
    pub(crate) fn fill<T>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
        read: impl Fn(&mut [f32], usize) -> Result<()>,
    ) -> Result<()> {
        self.compute_norms(&read)?;
        let end = first + values.len();
        self.updated(first..end, &self.steps, &read, |wide, start| {
            let (from, to) = (start.max(first), (start + wide.len()).min(end));
            let wanted = &wide[from - start..to - start];
            for (value, &wide) in values[from - first..to - first].iter_mut().zip(wanted) {
                *value = narrow(wide);
            }
        })
    }

    /// Computes the norms of inputs that are still missing, each with a pass over the whole tensor.
    fn compute_norms(&self, read: &impl Fn(&mut [f32], usize) -> Result<()>) -> Result<()> {
        for (index, step) in self.steps.iter().enumerate() {
            let Step::Decompose(decomposition) = step else {
                continue;
            };
            let Some(inputs) = decomposition.magnitudes.missing_norms() else {
                continue;
            };
            let mut sums = vec![0.0; inputs];
            let (before, columns) = (&self.steps[..index], self.columns);
            self.updated(0..self.rows * columns, before, read, |wide, start| {
                self.in_tasks(wide, start / columns, |values, first_row| {
                    decomposition.difference.add_to(values, first_row, columns);
                });
                // One thread, so that the order of the sum is always the same.
                decomposition::add_squares(&mut sums, wide, columns);
            })?;
            decomposition.magnitudes.set_norms(&sums);
        }
        Ok(())
    }

    /// Reads each stretch of the tensor that overlaps with `range`, applies `steps` to it, and passes it on with
    /// the index of its first value.
    fn updated(
        &self,
        range: std::ops::Range<usize>,
        steps: &[Step],
        read: &impl Fn(&mut [f32], usize) -> Result<()>,
        mut then: impl FnMut(&mut [f32], usize),
    ) -> Result<()> {
        let count = self.rows * self.columns;
        let stretch = stretch(self.rows, self.columns);
        let mut wide = vec![0.0; stretch];
        let mut start = range.start / stretch * stretch;
        while start < range.end.min(count) {
            let next = (start + stretch).min(count);
            let wide = &mut wide[..next - start];
            read(wide, start)?;
            self.in_tasks(wide, start / self.columns, |values, first_row| {
                for step in steps {
                    match step {
                        Step::Add(difference) => difference.add_to(values, first_row, self.columns),
                        Step::Decompose(decomposition) => {
                            decomposition.apply(values, first_row, self.columns);
                        }
                    }
                }
            });
            then(wide, start);
            start = next;
        }
        Ok(())
    }

    /// Runs `work` in parallel on `values`, rows of the tensor from `first_row` on, a few rows at a time.
    fn in_tasks(&self, values: &mut [f32], first_row: usize, work: impl Fn(&mut [f32], usize) + Sync) {
        let rows = task_rows(self.columns);
        let tasks = values.par_chunks_mut(rows * self.columns).enumerate();
        tasks.for_each(|(index, values)| work(values, first_row + index * rows));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|index| (index as f32 * step).sin()).collect()
    }

    fn product(rows: usize, rank: usize, columns: usize, step: f32) -> Product {
        Product {
            up: numbers(rows * rank, step),
            down: numbers(rank * columns, step / 3.0),
            rank,
            columns,
        }
    }

    /// The value of a product, in 64 bits.
    fn value(product: &Product, row: usize, column: usize) -> f64 {
        let &Product { rank, columns, .. } = product;
        (0..rank)
            .map(|index| {
                f64::from(product.up[row * rank + index]) * f64::from(product.down[index * columns + column])
            })
            .sum()
    }

    /// The values from `first` on of a tensor of values `own`.
    fn part(update: &WeightUpdate, own: &[f32], first: usize, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        let read = |wide: &mut [f32], first: usize| {
            wide.copy_from_slice(&own[first..first + wide.len()]);
            Ok(())
        };
        update.fill(&mut values, first, |value| value, read).unwrap();
        values
    }

    #[test]
    fn a_part_of_a_tensor_has_the_bits_of_the_whole() {
        // Three stretches of which the last is short, with rows that staging buffers of a GPU may split.
        let (rows, columns) = (1100, 2001);
        let all = vec![RowMove { from: 0, to: 0, rows }];
        let halves = vec![
            RowMove {
                from: 0,
                to: rows / 2,
                rows: rows / 2,
            },
            RowMove {
                from: rows / 2,
                to: 0,
                rows: rows / 2,
            },
        ];
        let low_rank = || Difference::LowRank(product(rows, 3, columns, 0.7));
        let hadamard = || Difference::Hadamard {
            products: [product(rows, 3, columns, 0.4), product(rows, 2, columns, 0.6)],
            moves: halves.clone(),
        };
        let kronecker = |moves: &[RowMove]| Difference::Kronecker {
            left: Matrix::Product(product(44, 2, 69, 0.9)),
            right: Matrix::Whole {
                values: numbers(25 * 29, 0.2),
                columns: 29,
            },
            moves: moves.to_vec(),
        };
        let by_rows = |scale| Decomposition {
            difference: kronecker(&halves),
            magnitudes: Magnitudes::Rows {
                values: numbers(rows, 0.1),
                moves: halves.clone(),
            },
            scale,
        };
        let by_inputs = |scale| Decomposition {
            difference: hadamard(),
            magnitudes: Magnitudes::Inputs {
                values: numbers(columns / 3, 0.1),
                over_norms: OnceLock::new(),
            },
            scale,
        };
        let own = numbers(rows * columns, 0.01);
        let everything = || {
            vec![
                Step::Decompose(by_inputs(0.6)),
                Step::Add(low_rank()),
                Step::Decompose(by_rows(-0.3)),
                Step::Decompose(by_inputs(1.0)),
            ]
        };
        let updates: [&dyn Fn() -> Vec<Step>; 6] = [
            &|| vec![Step::Add(low_rank())],
            &|| vec![Step::Add(hadamard())],
            &|| vec![Step::Add(kronecker(&all)), Step::Add(low_rank())],
            &|| vec![Step::Decompose(by_rows(1.0))],
            &|| vec![Step::Decompose(by_inputs(1.0))],
            &everything,
        ];
        for (index, steps) in updates.iter().enumerate() {
            let update = || WeightUpdate {
                rows,
                columns,
                steps: steps(),
            };
            let whole = part(&update(), &own, 0, rows * columns);
            for (first, count) in [
                (0, 1),
                (5, 4000),
                (1_048_000, 3000),
                (rows * columns - 9, 9),
                (100, 2_000_000),
            ] {
                assert!(
                    part(&update(), &own, first, count) == whole[first..first + count],
                    "{index}: {first} and {count} on"
                );
            }
        }
    }

    #[test]
    fn values_are_those_of_the_formulas_in_the_order_of_the_steps() {
        // Rows whose halves change places, and a kernel of two for each input.
        let (rows, inputs, area) = (12, 5, 2);
        let columns = inputs * area;
        let moves = vec![
            RowMove {
                from: 0,
                to: 6,
                rows: 6,
            },
            RowMove {
                from: 6,
                to: 0,
                rows: 6,
            },
        ];
        let layer_row = |row: usize| (row + 6) % 12;
        let plain = product(rows, 3, columns, 0.7);
        let [one, other] = [product(rows, 3, columns, 0.4), product(rows, 2, columns, 0.6)];
        let (left, right) = (numbers(4 * 5, 0.3), product(3, 2, 2, 0.8));
        let (of_rows, of_inputs) = (numbers(rows, 0.1), numbers(inputs, 0.5));
        let own = numbers(rows * columns, 0.01);

        let mut expected: Vec<f64> = own.iter().map(|&value| f64::from(value)).collect();
        let add = |values: &mut [f64], difference: &dyn Fn(usize, usize) -> f64| {
            for (index, value) in values.iter_mut().enumerate() {
                *value += difference(index / columns, index % columns);
            }
        };
        add(&mut expected, &|row, column| value(&plain, row, column));
        let before = expected.clone();
        add(&mut expected, &|row, column| {
            let row = layer_row(row);
            f64::from(left[row / 3 * 5 + column / 2]) * value(&right, row % 3, column % 2)
        });
        for row in 0..rows {
            let values = &mut expected[row * columns..][..columns];
            let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
            let factor = f64::from(of_rows[layer_row(row)]) / norm;
            values.iter_mut().for_each(|value| *value *= factor);
        }
        for (value, before) in expected.iter_mut().zip(before) {
            *value = before + 0.7 * (*value - before);
        }
        add(&mut expected, &|row, column| {
            let row = layer_row(row);
            value(&one, row, column) * value(&other, row, column)
        });
        for (input, magnitude) in of_inputs.iter().enumerate() {
            let places = (0..rows * columns).filter(|index| index % columns / area == input);
            let norm = places.clone().map(|index| expected[index].powi(2)).sum::<f64>();
            for index in places {
                expected[index] *= f64::from(*magnitude) / norm.sqrt();
            }
        }

        let update = WeightUpdate {
            rows,
            columns,
            steps: vec![
                Step::Add(Difference::LowRank(plain)),
                Step::Decompose(Decomposition {
                    difference: Difference::Kronecker {
                        left: Matrix::Whole {
                            values: left,
                            columns: 5,
                        },
                        right: Matrix::Product(right),
                        moves: moves.clone(),
                    },
                    magnitudes: Magnitudes::Rows {
                        values: of_rows,
                        moves: moves.clone(),
                    },
                    scale: 0.7,
                }),
                Step::Decompose(Decomposition {
                    difference: Difference::Hadamard {
                        products: [one, other],
                        moves,
                    },
                    magnitudes: Magnitudes::Inputs {
                        values: of_inputs,
                        over_norms: OnceLock::new(),
                    },
                    scale: 1.0,
                }),
            ],
        };
        let found = part(&update, &own, 0, rows * columns);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (f64::from(*found) - expected).abs() < 2e-6,
                "{index}: {found}, {expected}"
            );
        }
    }
}
