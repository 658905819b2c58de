//! Rows of activations, rounded to whole numbers of 8 bits, as quantised weights are multiplied with.
//!
//! As ggml does it: the values of a part of a block share a scale, with which the greatest of them is 127. The products of a
//! part are then whole numbers, of which every processor has the same sums.

use rayon::prelude::*;

use super::super::simd::{InstructionSet, Kernel, Simd};
use super::blocks::{A_WORD, PART, WORDS};

/// The greatest whole number.
const MOST: f32 = 127.0;
/// Parts of a task.
const A_TASK: usize = 1024;

/// Rows of activations as whole numbers of 8 bits.
pub(super) struct Rounded {
    /// Four numbers each, in the order of their bytes in memory.
    words: Vec<u32>,
    scales: Vec<Scale>,
}

/// What the whole numbers of a part of a row stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// What each is to be multiplied by. Not a number where a value was not finite.
    pub(super) scale: f32,
    /// Their sum.
    pub(super) sum: f32,
}

impl Rounded {
    /// Rounds values, which are whole parts.
    pub(super) fn new(set: InstructionSet, values: &[f32]) -> Self {
        let parts = values.len() / PART;
        let mut words = vec![0; parts * WORDS];
        let nothing = Scale { scale: 0.0, sum: 0.0 };
        let mut scales = vec![nothing; parts];
        let tasks = words
            .par_chunks_mut(A_TASK * WORDS)
            .zip(scales.par_chunks_mut(A_TASK));
        tasks
            .zip(values.par_chunks(A_TASK * PART))
            .for_each(|((words, scales), values)| {
                set.run(Rounding {
                    values,
                    words,
                    scales,
                })
            });
        Self { words, scales }
    }

    /// The words from the part at `index` on.
    #[inline(always)]
    pub(super) fn words(&self, index: usize) -> &[u32] {
        &self.words[index * WORDS..]
    }

    /// The scales from the part at `index` on.
    #[inline(always)]
    pub(super) fn scales(&self, index: usize) -> &[Scale] {
        &self.scales[index..]
    }
}

/// Some parts.
struct Rounding<'a> {
    values: &'a [f32],
    words: &'a mut [u32],
    scales: &'a mut [Scale],
}

impl Kernel for Rounding<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (part, scale) in self.scales.iter_mut().enumerate() {
            let values = &self.values[part * PART..][..PART];
            let words = &mut self.words[part * WORDS..][..WORDS];
            *scale = round(simd, values, words);
        }
    }
}

/// Rounds a part.
#[inline(always)]
fn round<S: Simd>(simd: S, values: &[f32], words: &mut [u32]) -> Scale {
    // Added, it leaves no bits for what is behind the point, and the lowest byte is that of the whole number.
    const WHOLE: f32 = 12_582_912.0;
    let (mut greatest, mut nothing) = (simd.zero(), simd.zero());
    for values in values.chunks_exact(S::LANES) {
        // SAFETY: so many values there are.
        let values = unsafe { simd.load(values.as_ptr()) };
        greatest = simd.max(simd.abs(values), greatest);
        nothing = simd.fma(values, simd.zero(), nothing);
    }
    // Zero times what is not finite is not a number.
    let scale = simd.greatest(greatest) / MOST + simd.sum(nothing);
    let inverse = if scale >= f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    let mut bytes = [[0; A_WORD]; WORDS];
    let mut sum = 0;
    for (byte, value) in bytes.as_flattened_mut().iter_mut().zip(values) {
        *byte = (value * inverse + WHOLE).to_bits() as u8;
        sum += i32::from(*byte as i8);
    }
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_ne_bytes(bytes);
    }
    Scale {
        scale,
        sum: sum as f32,
    }
}
