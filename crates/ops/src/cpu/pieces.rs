//! Results that all threads write, a piece at a time.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A result of `length` values in pieces of `piece` of them, but for the last. `write` is given where in the result a piece begins and
/// the piece, and gives it back as written. The memory is not set to zero first: to write it a second time takes as long.
pub(crate) fn written(
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
    // SAFETY: every value belongs to a piece, of which there was a slice of values in the end, as long as it is.
    unsafe { result.set_len(length) };
    result
}
