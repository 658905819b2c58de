//! A low-rank update, `W + up @ down`, that is added to a tensor while the tensor is read.

use std::fmt;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::Result;

/// The number of values of a tensor that are converted and updated at a time, unless a single row has more.
pub(crate) const STRETCH: usize = 1 << 20;
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
    fn update(&self, name: &str) -> Result<Option<LowRankUpdate>>;

    /// Checks that the files of the updates were not written to since they were opened.
    ///
    /// # Errors
    /// A file has changed.
    fn check_unchanged(&self) -> Result<()>;
}

/// The update of one tensor: a product of two matrices, in which the updates of several LoRA files lie side
/// by side with their scales multiplied in.
#[derive(Debug)]
pub(crate) struct LowRankUpdate {
    /// `[rows, rank]`, the ranks of all files side by side.
    pub(crate) up: Vec<f32>,
    /// `[rank, columns]`
    pub(crate) down: Vec<f32>,
    pub(crate) rows: usize,
    pub(crate) rank: usize,
    pub(crate) columns: usize,
}

impl LowRankUpdate {
    /// Fills `values` with the updated values of the tensor from index `first` on. `read` fills a slice with
    /// the stored values from an index on. `narrow` rounds a value to the type that the tensor is held in.
    ///
    /// The tensor is always split into the same stretches, so that a part has the bits of the whole.
    pub(crate) fn fill<T>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
        read: impl Fn(&mut [f32], usize) -> Result<()>,
    ) -> Result<()> {
        let stretch = (STRETCH / self.columns).max(1) * self.columns;
        let end = first + values.len();
        let mut wide = vec![0.0; stretch.min(self.rows * self.columns)];
        let mut start = first / stretch * stretch;
        while start < end {
            let next = (start + stretch).min(self.rows * self.columns);
            if next <= start {
                break;
            }
            let wide = &mut wide[..next - start];
            read(wide, start)?;
            self.add_to(wide, start / self.columns);
            let (from, to) = (start.max(first), next.min(end));
            let wanted = &wide[from - start..to - start];
            for (value, &wide) in values[from - first..to - first].iter_mut().zip(wanted) {
                *value = narrow(wide);
            }
            start = next;
        }
        Ok(())
    }

    /// Adds the rows of the product from `first_row` on to `values`, which are whole rows of the tensor.
    fn add_to(&self, values: &mut [f32], first_row: usize) {
        let rows = (TASK / self.columns).max(1);
        let up = self.up[first_row * self.rank..].par_chunks(rows * self.rank);
        values
            .par_chunks_mut(rows * self.columns)
            .zip(up)
            .for_each(|(values, up)| self.add_product(values, up));
    }

    /// Adds `up @ down` to `values`, which have at most as many rows as `up`.
    #[allow(unsafe_code)]
    fn add_product(&self, values: &mut [f32], up: &[f32]) {
        let &Self { rank, columns, .. } = self;
        let rows = values.len() / columns;
        assert!(
            up.len() >= rows * rank && self.down.len() >= rank * columns,
            "a product of matrices that do not go together. This is a bug."
        );
        // SAFETY: all three matrices are stored row after row in slices that are large enough, as was checked
        // above, and `values` is borrowed for nobody else.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                rank,
                values.as_mut_ptr(),
                1,
                columns as isize,
                true,
                up.as_ptr(),
                1,
                rank as isize,
                self.down.as_ptr(),
                1,
                columns as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_tensor_has_the_bits_of_the_whole() {
        // Three stretches of which the last is short, with rows that staging buffers of a GPU may split.
        let (rows, rank, columns) = (1100, 3, 2001);
        let numbers = |count: usize, step: f32| (0..count).map(|index| (index as f32 * step).sin()).collect();
        let merge = LowRankUpdate {
            up: numbers(rows * rank, 0.7),
            down: numbers(rank * columns, 0.3),
            rows,
            rank,
            columns,
        };
        let own: Vec<f32> = numbers(rows * columns, 0.01);
        let part = |first: usize, count: usize| {
            let mut values = vec![0.0; count];
            let read = |wide: &mut [f32], first: usize| {
                wide.copy_from_slice(&own[first..first + wide.len()]);
                Ok(())
            };
            merge.fill(&mut values, first, |value| value, read).unwrap();
            values
        };
        let whole = part(0, rows * columns);
        let exact = |place: usize| {
            let (row, column) = (place / columns, place % columns);
            let products =
                (0..rank).map(|index| merge.up[row * rank + index] * merge.down[index * columns + column]);
            own[place] + products.sum::<f32>()
        };
        for place in [0, 7, 1_047_000, rows * columns - 1] {
            assert!((whole[place] - exact(place)).abs() < 1e-5, "{place}");
        }
        for (first, count) in [
            (0, 1),
            (5, 4000),
            (1_048_000, 3000),
            (rows * columns - 9, 9),
            (100, 2_000_000),
        ] {
            assert!(
                part(first, count) == whole[first..first + count],
                "{first} and {count} on"
            );
        }
    }
}
