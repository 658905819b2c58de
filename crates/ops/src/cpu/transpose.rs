//! Transposing matrices.

use rayon::prelude::*;

use super::simd::{InstructionSet, Kernel, Simd};
use super::target::Target;

/// Rows of the result that a thread writes at a time, from as many columns: a few cache lines of each row.
const STRIP: usize = 64;

/// Transposes every matrix of `rows` by `columns` in `values`.
pub(crate) fn transpose(set: InstructionSet, values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    let target = Target::uninitialized(&mut result, values.len(), rows);
    let size = (rows * columns).max(1);
    let strips = columns.div_ceil(STRIP);
    (0..values.len() / size * strips)
        .into_par_iter()
        .for_each(|task| {
            let (matrix, first) = (task / strips, task % strips * STRIP);
            let width = STRIP.min(columns - first);
            let begin = matrix * size;
            set.run(Strip {
                from: &values[begin + first..begin + size],
                rows,
                columns,
                width,
                to: target.at(begin + first * rows).block(width, rows),
            });
        });
    // SAFETY: matrices are whole, and each column of each belongs to a strip, which has written it.
    unsafe { result.set_len(values.len()) };
    result
}

/// `width` columns of a matrix, from the first of `from` on.
struct Strip<'a> {
    from: &'a [f32],
    rows: usize,
    columns: usize,
    width: usize,
    /// `width` rows of `rows` values, for this strip alone.
    to: *mut f32,
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            from,
            rows,
            columns,
            width,
            to,
        } = self;
        let last = (rows - 1) * columns + width;
        assert!(
            last <= from.len(),
            "a strip outside of its matrix. This is a bug."
        );
        let from = from.as_ptr();
        for top in (0..rows).step_by(S::LANES) {
            let height = S::LANES.min(rows - top);
            for left in (0..width).step_by(S::LANES) {
                let breadth = S::LANES.min(width - left);
                // SAFETY: the block lies inside of the strip, which was checked to lie inside of its matrix,
                // and of what is written.
                unsafe {
                    let (from, to) = (from.add(top * columns + left), to.add(left * rows + top));
                    if height == S::LANES && breadth == S::LANES {
                        simd.transpose(from.cast(), 4 * columns, to.cast(), 4 * rows);
                        continue;
                    }
                    for column in 0..breadth {
                        for row in 0..height {
                            *to.add(column * rows + row) = *from.add(row * columns + column);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_are_where_they_belong(
            (matrices, rows, columns) in (0_usize..4, 0_usize..150, 0_usize..150),
        ) {
            let values: Vec<f32> = (0..matrices * rows * columns).map(|index| index as f32).collect();
            let mut expected = Vec::new();
            for matrix in values.chunks(rows * columns + usize::from(values.is_empty())) {
                for column in 0..columns {
                    expected.extend((0..rows).map(|row| matrix[row * columns + column]));
                }
            }
            for set in InstructionSet::all() {
                prop_assert_eq!(&transpose(set, &values, rows, columns), &expected);
            }
        }
    }
}
