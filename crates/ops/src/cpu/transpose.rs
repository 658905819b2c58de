//! Transposing matrices.

use rayon::prelude::*;

/// Rows and columns of what is transposed at a time: two such squares fit into the first cache.
const SIDE: usize = 32;

/// Every matrix of `rows` and `columns` in `values`, transposed.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    let size = rows * columns;
    if size == 0 {
        return result;
    }
    let matrices = result.par_chunks_mut(size).zip(values.par_chunks(size));
    matrices.for_each(|(result, values)| {
        // A thread writes whole rows of the result.
        let strips = result.par_chunks_mut(SIDE * rows).enumerate();
        strips.for_each(|(strip, result)| {
            let first = strip * SIDE;
            let width = SIDE.min(columns - first);
            for top in (0..rows).step_by(SIDE) {
                let height = SIDE.min(rows - top);
                for (column, result) in result.chunks_exact_mut(rows).enumerate().take(width) {
                    let from = values[top * columns + first + column..].iter().step_by(columns);
                    for (to, from) in result[top..top + height].iter_mut().zip(from) {
                        *to = *from;
                    }
                }
            }
        });
    });
    result
}
