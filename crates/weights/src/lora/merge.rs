//! A tensor of a network and the products that are added to it.

use gemm::Parallelism;
use rayon::prelude::*;

use super::adapters::Changed;
use crate::Result;

/// Values of a tensor that are widened, changed and narrowed at a time, unless a single row has more.
pub(super) const STRETCH: usize = 1 << 20;
/// Values that a thread changes at a time, unless a single row has more.
const TASK: usize = 1 << 16;

/// What is added to a tensor: one product of matrices for all files, with their factors in it.
#[derive(Debug)]
pub(crate) struct Merge {
    /// `[rows, rank]`, the files' ranks side by side.
    up: Vec<f32>,
    /// `[rank, columns]`
    down: Vec<f32>,
    rows: usize,
    rank: usize,
    columns: usize,
}

impl Merge {
    /// Reads the matrices of all files.
    pub(super) fn read(changed: &Changed) -> Result<Self> {
        let &Changed { rows, columns, .. } = changed;
        let rank = changed.rank();
        let (mut up, mut down) = (vec![0.0; rows * rank], vec![0.0; rank * columns]);
        let mut first = 0;
        for update in &changed.updates {
            let (file, layer) = (update.file(), update.layer());
            let factor = update.scale * layer.factor(file)?;
            layer.read_down(file, &mut down[first * columns..(first + layer.rank) * columns])?;
            let mut values = vec![0.0; layer.rows * layer.rank];
            layer.read_up(file, &mut values)?;
            for moved in &update.moves {
                let from = values.chunks_exact(layer.rank).skip(moved.from).take(moved.rows);
                let to = up.chunks_exact_mut(rank).skip(moved.to);
                for (to, from) in to.zip(from) {
                    for (to, from) in to[first..first + layer.rank].iter_mut().zip(from) {
                        *to = factor * from;
                    }
                }
            }
            first += layer.rank;
        }
        Ok(Self {
            up,
            down,
            rows,
            rank,
            columns,
        })
    }

    /// Fills `values` with the tensor's from `first` on, changed. `read` fills a slice with the tensor's own values from
    /// the given one on; `narrow` rounds them to the type that they are held in.
    ///
    /// The tensor is cut into the same stretches whatever part of it is wanted.
    pub(crate) fn fill<T>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T,
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

    /// Adds the product's rows from `first_row` on to `values`, whole rows of the tensor.
    fn add_to(&self, values: &mut [f32], first_row: usize) {
        let rows = (TASK / self.columns).max(1);
        let up = self.up[first_row * self.rank..].par_chunks(rows * self.rank);
        values
            .par_chunks_mut(rows * self.columns)
            .zip(up)
            .for_each(|(values, up)| self.add_product(values, up));
    }

    /// Adds `up @ down` to `values`, which are as many rows as `up` has or fewer.
    #[allow(unsafe_code)]
    fn add_product(&self, values: &mut [f32], up: &[f32]) {
        let &Self { rank, columns, .. } = self;
        let rows = values.len() / columns;
        assert!(
            up.len() >= rows * rank && self.down.len() >= rank * columns,
            "a product of matrices that do not go together. This is a bug."
        );
        // SAFETY: all three matrices are stored row after row in slices that are large enough, as was checked above, and
        // `values` is borrowed for nobody else.
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
        // Three stretches of which the last is short, of rows that stages of a GPU cut anywhere.
        let (rows, rank, columns) = (1100, 3, 2001);
        let numbers = |count: usize, step: f32| (0..count).map(|index| (index as f32 * step).sin()).collect();
        let merge = Merge {
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
