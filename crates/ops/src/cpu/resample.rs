//! Nearest-neighbour upsampling on the CPU.

use std::mem::MaybeUninit;

use super::parallel_fill::parallel_fill;

/// Pixels of a parallel task.
const PIECE: usize = 1 << 13;

/// Repeats every pixel twice in both directions; `width` pixels per row.
pub(crate) fn upsample_nearest(values: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    assert!(
        values.len().is_multiple_of(width),
        "images of rows that are not whole. This is a bug."
    );
    let piece = (PIECE / width).max(1) * 4 * width;
    parallel_fill(4 * values.len(), piece, |first, to| {
        let rows = values[first / 4..].chunks_exact(width);
        for (to, from) in to.chunks_exact_mut(4 * width).zip(rows) {
            let (first, second) = to.split_at_mut(2 * width);
            for (pair, &value) in first.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                *pair = [MaybeUninit::new(value); 2];
            }
            second.copy_from_slice(first);
        }
        // SAFETY: pieces are made of pairs of whole rows, each of which has been written.
        unsafe { to.assume_init_mut() }
    })
}
