//! Pictures made larger, on the processor.

use rayon::prelude::*;

/// Every pixel repeated twice in both directions; `width` pixels a row.
pub(crate) fn upsample_nearest(values: &[f32], width: usize) -> Vec<f32> {
    let mut result = vec![0.0; 4 * values.len()];
    let width = width.max(1);
    result
        .par_chunks_mut(4 * width)
        .zip(values.par_chunks(width))
        .for_each(|(to, from)| {
            let (first, second) = to.split_at_mut(2 * width);
            for (pair, &value) in first.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                *pair = [value, value];
            }
            second.copy_from_slice(first);
        });
    result
}
