//! Sections of a tensor that have nothing to do with each other: rows, channels, or groups of channels.

use std::mem::MaybeUninit;

use super::pieces::written;
use super::simd::{InstructionSet, Kernel, Simd};

/// Sections are shared among threads in pieces of about this many values.
const PIECE: usize = 1 << 13;

/// What becomes of a section.
pub(crate) trait Section: Copy + Sync {
    /// What becomes of all sections, of `size` values each, of `values`.
    fn of(self, set: InstructionSet, values: &[f32], size: usize) -> Vec<f32> {
        let size = size.max(1);
        assert!(
            values.len().is_multiple_of(size),
            "sections that are not whole. This is a bug."
        );
        let piece = (PIECE / size).max(1) * size;
        written(values.len(), piece, |first, to| {
            set.run(Piece {
                section: self,
                size,
                index: first / size,
                from: &values[first..first + to.len()],
                to,
            })
        })
    }

    /// Writes what becomes of the section `from` with this index. To be marked `#[inline(always)]`.
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32];
}

/// Some sections, from one with an index on.
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
