//! Results that all threads write, a piece at a time.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A result of `length` values, written in parallel in pieces of `piece` values. `write` gets the offset and
/// the uninitialised piece, and returns it initialised. The memory is not zeroed first, which would write it
/// twice.
pub(crate) fn parallel_fill(
    length: usize,
    piece: usize,
    write: impl for<'a> Fn(usize, &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] + Sync,
) -> Vec<f32> {
    let mut result = Vec::with_capacity(length);
    let piece = piece.max(1);
    let pieces = result.spare_capacity_mut()[..length].par_chunks_mut(piece);
    pieces.enumerate().for_each(|(index, unwritten)| {
        let range = unwritten.as_ptr_range();
        let values = write(index * piece, unwritten).as_ptr_range();
        assert!(
            values.start == range.start.cast() && values.end == range.end.cast(),
            "a piece of a result was given back as another. This is a bug."
        );
    });
    // SAFETY: every value belongs to a piece, of which there was a slice of values in the end, as long as it
    // is.
    unsafe { result.set_len(length) };
    result
}
