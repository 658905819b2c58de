//! Packs quantised weights: some rows of a stretch are decoded at a time, into the L1 cache.

use super::super::elements::{elements, lay, numbers};
use super::super::simd::{InstructionSet, MOST_LANES, Simd};
use super::lanes::{self, pack_lanes};
use super::pack::{Stretch, pack};
use super::quantized_rows::QuantizedRows;
use crate::quantization::{Decode, UNIT};

/// Scratch for decoded values.
pub(super) struct Decoded<'a> {
    /// The instruction set that decodes. The decoders of all forms are compiled once for each, not into every
    /// kernel.
    pub(super) set: InstructionSet,
    /// [`LENGTH`](Self::LENGTH) floats.
    pub(super) scratch: &'a mut [f32],
}

impl Decoded<'_> {
    /// Floats of the scratch.
    pub(super) const LENGTH: usize = MOST_LANES * UNIT;
}

/// Packs `count` values from `first` on, a multiple of 32, of at most `LANES` rows from `row` on into `to`: a
/// vector for each value, or for each pair of values rounded to bf16, `step` floats apart. Missing rows and
/// values are 0.
#[inline(always)]
pub(super) fn pack_quantized<S: Simd, const PAIRS: bool>(
    simd: S,
    weight: QuantizedRows<'_>,
    decoded: Decoded<'_>,
    (row, rows): (usize, usize),
    (first, count): (usize, usize),
    (to, step): (&mut [f32], usize),
) {
    let QuantizedRows {
        bytes,
        row_bytes,
        inputs,
        quantization,
    } = weight;
    if rows == S::LANES && lanes::decodes(quantization) {
        return pack_lanes::<S, PAIRS>(simd, weight, row, (first, count), (to, step));
    }
    let block = quantization.block_values();
    let bytes = &bytes[(row * row_bytes).min(bytes.len())..][..rows * row_bytes];
    let end = first + count;
    let mut at = first;
    while at < end {
        // Whole blocks of one unit. The first and the last may have values of neighbouring stretches.
        let start = at / block * block;
        let next = end.min((at / UNIT + 1) * UNIT);
        let stop = next.next_multiple_of(block).min(inputs);
        decoded.set.run(Decode {
            quantization,
            bytes,
            row_bytes,
            rows,
            first: start,
            count: stop - start,
            to: &mut *decoded.scratch,
            step: UNIT,
        });
        if PAIRS {
            for row in decoded.scratch.chunks_exact_mut(UNIT).take(rows) {
                round(simd, &mut row[at - start..next - start]);
            }
        }
        let stretch = Stretch::of_elements(
            &decoded.scratch[at - start..],
            UNIT,
            rows,
            elements::<PAIRS>(next - at),
        );
        pack(
            simd,
            stretch,
            &mut to[(at - first) / numbers::<PAIRS>() * step..],
            step,
        );
        at = next;
    }
}

/// Rounds `values` to pairs of bf16, in place of the first half of them.
#[inline(always)]
fn round<S: Simd>(simd: S, values: &mut [f32]) {
    let mut from = [0.0; UNIT];
    let from = &mut from[..values.len()];
    from.copy_from_slice(values);
    lay::<S, true>(simd, from, None, &mut values[..elements::<true>(from.len())]);
}
