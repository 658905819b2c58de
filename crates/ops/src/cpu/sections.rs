//! Independent sections of a tensor: rows, channels, or groups of channels.

use std::mem::MaybeUninit;

use super::parallel_fill::parallel_fill;
use super::simd::{InstructionSet, Kernel, Simd};

/// Values of a parallel task, about.
const PIECE: usize = 1 << 13;

/// An operation on independent sections.
pub(crate) trait Section: Copy + Sync {
    /// The results of all sections of `values`, of `size` values each.
    fn of(self, set: InstructionSet, values: &[f32], size: usize) -> Vec<f32> {
        let size = size.max(1);
        assert!(
            values.len().is_multiple_of(size),
            "sections that are not whole. This is a bug."
        );
        let piece = (PIECE / size).max(1) * size;
        parallel_fill(values.len(), piece, |first, to| {
            set.run(Piece {
                section: self,
                size,
                index: first / size,
                from: &values[first..first + to.len()],
                to,
            })
        })
    }

    /// Writes the result of the section `from` at `index`. To be marked `#[inline(always)]`.
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32];
}

/// Some sections, from the one at `index` on.
struct Piece<'a, 'b, T> {
    section: T,
    size: usize,
    index: usize,
    from: &'b [f32],
    to: &'a mut [MaybeUninit<f32>],
}

impl<'a, T: Section> Kernel for Piece<'a, '_, T> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> &'a mut [f32] {
        let sections = self.from.chunks_exact(self.size);
        for (offset, (from, to)) in sections.zip(self.to.chunks_exact_mut(self.size)).enumerate() {
            self.section.write(simd, self.index + offset, from, to);
        }
        // SAFETY: pieces are made of whole sections, each of which has been written.
        unsafe { self.to.assume_init_mut() }
    }
}
