//! Splits a thread's scratch into buffers that begin at cache lines.

/// Floats in a cache line.
pub(crate) const LINE: usize = 16;

/// Floats of scratch for buffers of the given lengths.
pub(crate) const fn aligned_length<const N: usize>(lengths: [usize; N]) -> usize {
    // Iterators are not allowed in const functions.
    let (mut floats, mut index) = (LINE, 0);
    while index < N {
        floats += lengths[index].next_multiple_of(LINE);
        index += 1;
    }
    floats
}

/// Splits `scratch` into buffers of the given lengths, each of which begins at a cache line. `scratch` has
/// the length that [`aligned_length`] returns.
pub(crate) fn split_aligned<const N: usize>(scratch: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let unaligned = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
    let mut rest = &mut scratch[unaligned..];
    lengths.map(|length| {
        let (buffer, after) = std::mem::take(&mut rest).split_at_mut(length.next_multiple_of(LINE));
        rest = after;
        &mut buffer[..length]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_with_lines() {
        let lengths = [5, 0, 16, 33];
        let mut scratch = vec![0.0; aligned_length(lengths) + 1];
        for first in 0..2 {
            let buffers = split_aligned(&mut scratch[first..], lengths);
            for (buffer, length) in buffers.iter().zip(lengths) {
                assert_eq!(buffer.len(), length);
                assert_eq!(buffer.as_ptr().addr() % (4 * LINE), 0);
            }
        }
    }
}
