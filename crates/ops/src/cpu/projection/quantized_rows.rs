//! Activations quantised to 8-bit integers, for products with quantised weights.
//!
//! As in ggml, the values of a part share a scale, with which the largest becomes 127. The integer products
//! of a part have the same sums on every CPU.

use rayon::prelude::*;

use super::super::simd::{InstructionSet, Kernel, Simd};
use super::blocks::{A_WORD, PART, WORDS};

/// The largest integer.
const MOST: f32 = 127.0;
/// Parts of a parallel task.
const A_TASK: usize = 1024;

/// Rows of activations as 8-bit integers.
pub(super) struct QuantizedRows {
    /// Four integers each, in memory order.
    words: Vec<u32>,
    scales: Vec<Scale>,
}

/// The scale of a part of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The factor of its integers; NaN if a value was not finite.
    pub(super) scale: f32,
    /// The sum of its integers.
    pub(super) sum: f32,
}

impl QuantizedRows {
    /// Quantises values, which are whole parts.
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

/// Quantises a part.
#[inline(always)]
fn round<S: Simd>(simd: S, values: &[f32], words: &mut [u32]) -> Scale {
    // Adding it rounds to an integer, whose lowest byte is the 8-bit integer.
    const WHOLE: f32 = 12_582_912.0;
    let (mut greatest, mut nothing) = (simd.zero(), simd.zero());
    for values in values.chunks_exact(S::LANES) {
        // SAFETY: a chunk has `LANES` values.
        let values = unsafe { simd.load(values.as_ptr()) };
        greatest = simd.max(simd.abs(values), greatest);
        nothing = simd.fma(values, simd.zero(), nothing);
    }
    // 0 times infinity or NaN is NaN.
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
