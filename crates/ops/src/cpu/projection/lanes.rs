//! Decodes the most common blocks of ggml with a vector lane for each row.
//!
//! Bytes are transposed four at a time, as 32-bit words. Transposing decoded values moves four times as much. The
//! operations on each value are those of [`Quantization::decode`], so that the bits are the same.

use super::super::elements::{elements, numbers};
use super::super::simd::{MOST_LANES, Simd};
use super::quantized_rows::QuantizedRows;
use crate::Quantization;

/// Values that share a scale.
const PART: usize = 32;
/// Bytes that are transposed at a time.
const UNIT: usize = 32;
/// Words of them.
const WORDS: usize = UNIT / 4;
/// Bytes from one unit to the one that is prefetched meanwhile.
const AHEAD: usize = 8 * UNIT;
/// Bytes of a block of `Q4_K` before its integers.
const Q4_K_HEADER: usize = 16;

/// Whether [`pack_lanes`] decodes the form.
pub(super) fn decodes(quantization: Quantization) -> bool {
    matches!(quantization, Quantization::Q8_0 | Quantization::Q4K)
}

/// A unit of each row: a vector for each word, with a lane for each row.
#[repr(align(64))]
struct Words([f32; MOST_LANES * MOST_LANES]);

impl Words {
    fn new() -> Self {
        Self([0.0; MOST_LANES * MOST_LANES])
    }

    /// The vector of the word at `index`.
    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, index: usize) -> S::Vector {
        let words = &self.0[index * S::LANES..][..S::LANES];
        // SAFETY: the slice is a vector long.
        unsafe { simd.load(words.as_ptr()) }
    }
}

/// As many rows as a vector has lanes.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    /// Bytes from row to row.
    step: usize,
}

/// Packs `count` values from `first` on, both multiples of 32, of `LANES` rows from `row` on into `to`: a vector
/// for each value, or for each pair of values rounded to bf16, `step` floats apart.
#[inline(always)]
pub(super) fn pack_lanes<S: Simd, const PAIRS: bool>(
    simd: S,
    weight: QuantizedRows<'_>,
    row: usize,
    (first, count): (usize, usize),
    (to, step): (&mut [f32], usize),
) {
    let vectors = elements::<PAIRS>(count);
    assert!(
        first.is_multiple_of(PART)
            && count.is_multiple_of(PART)
            && first + count <= weight.inputs
            && (vectors == 0 || (vectors - 1) * step + S::LANES <= to.len()),
        "a quantised weight does not fit where it is laid out. This is a bug."
    );
    let rows = Rows {
        bytes: &weight.bytes[row * weight.row_bytes..][..S::LANES * weight.row_bytes],
        step: weight.row_bytes,
    };
    let (block_values, block_bytes) = (
        weight.quantization.block_values(),
        weight.quantization.block_bytes(),
    );
    let (mut words, mut padded) = (Words::new(), Words::new());
    let mut header = [simd.zero(); Q4_K_HEADER / 4];
    let mut to = to.as_mut_ptr();
    for value in (first..first + count).step_by(PART) {
        let block = value / block_values * block_bytes;
        if weight.quantization == Quantization::Q8_0 {
            let scale = rows.halves(simd, block);
            rows.transpose(simd, block + 2, &mut padded, &mut words);
            for word in 0..WORDS {
                let word = words.vector(simd, word);
                let values = signed_bytes(simd, word, scale);
                // SAFETY: there is space for all vectors, as was asserted.
                unsafe { store::<S, PAIRS>(simd, values, to, step) };
                to = to.wrapping_add(4 / numbers::<PAIRS>() * step);
            }
            continue;
        }
        let part = value % block_values / PART;
        if part == 0 || value == first {
            rows.transpose(simd, block, &mut padded, &mut words);
            for (index, header) in header.iter_mut().enumerate() {
                *header = words.vector(simd, index);
            }
        }
        if part.is_multiple_of(2) || value == first {
            let begin = block + Q4_K_HEADER + part / 2 * UNIT;
            rows.transpose(simd, begin, &mut padded, &mut words);
        }
        let (scale, least) = scale_and_least(simd, header, part as u32);
        let shift = part as u32 % 2 * 4;
        for word in 0..WORDS {
            let word = words.vector(simd, word);
            let values = nibbles(simd, word, shift, (scale, least));
            // SAFETY: as above.
            unsafe { store::<S, PAIRS>(simd, values, to, step) };
            to = to.wrapping_add(4 / numbers::<PAIRS>() * step);
        }
    }
}

/// The signed bytes of a word, times `scale`. No closure: one that is not inlined makes a call of each instruction.
#[inline(always)]
fn signed_bytes<S: Simd>(simd: S, word: S::Vector, scale: S::Vector) -> [S::Vector; 4] {
    [
        simd.mul(simd.signed_byte(word, 0), scale),
        simd.mul(simd.signed_byte(word, 1), scale),
        simd.mul(simd.signed_byte(word, 2), scale),
        simd.mul(simd.signed_byte(word, 3), scale),
    ]
}

/// The four bits from `shift`, 0 or 4, on of each byte of a word, times a scale, less a minimum. Both operations
/// round, as where a value is decoded on its own.
#[inline(always)]
fn nibbles<S: Simd>(
    simd: S,
    word: S::Vector,
    shift: u32,
    (scale, least): (S::Vector, S::Vector),
) -> [S::Vector; 4] {
    [
        simd.sub(simd.mul(scale, simd.bits(word, shift, 15)), least),
        simd.sub(simd.mul(scale, simd.bits(word, 8 + shift, 15)), least),
        simd.sub(simd.mul(scale, simd.bits(word, 16 + shift, 15)), least),
        simd.sub(simd.mul(scale, simd.bits(word, 24 + shift, 15)), least),
    ]
}

/// Stores the values of a word.
///
/// # Safety
/// There is space for 4 vectors, or 2 of pairs, that are `step` floats apart.
#[inline(always)]
unsafe fn store<S: Simd, const PAIRS: bool>(simd: S, values: [S::Vector; 4], to: *mut f32, step: usize) {
    let [a, b, c, d] = values;
    // SAFETY: guaranteed by the caller.
    unsafe {
        if PAIRS {
            simd.store(to, simd.pair(a, b));
            simd.store(to.wrapping_add(step), simd.pair(c, d));
        } else {
            simd.store(to, a);
            simd.store(to.wrapping_add(step), b);
            simd.store(to.wrapping_add(2 * step), c);
            simd.store(to.wrapping_add(3 * step), d);
        }
    }
}

impl Rows<'_> {
    /// The 16-bit float at byte `begin` of each row, widened.
    #[inline(always)]
    fn halves<S: Simd>(&self, simd: S, begin: usize) -> S::Vector {
        let mut halves = [0.0; MOST_LANES];
        for (row, half) in halves.iter_mut().enumerate().take(S::LANES) {
            let bytes = &self.bytes[row * self.step + begin..][..2];
            *half = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        }
        // SAFETY: there are at least as many as lanes.
        simd.even_f16(unsafe { simd.load(halves.as_ptr()) })
    }

    /// Writes the unit from byte `begin` of each row on to `to`.
    #[inline(always)]
    fn transpose<S: Simd>(&self, simd: S, begin: usize, padded: &mut Words, to: &mut Words) {
        assert!(
            (S::LANES - 1) * self.step + begin + UNIT <= self.bytes.len(),
            "words lie outside of their rows. This is a bug."
        );
        // After the end of these rows come the next rows.
        let ahead = match begin + AHEAD {
            ahead if ahead < self.step => ahead,
            ahead => ahead + (S::LANES - 1) * self.step,
        };
        for row in 0..S::LANES {
            simd.prefetch(self.bytes.as_ptr().wrapping_add(row * self.step + ahead));
        }
        // SAFETY: the units lie inside of the rows, as was asserted, and `padded` and `to` have space for as
        // many vectors as there are lanes.
        unsafe {
            let mut from = self.bytes.as_ptr().add(begin);
            let mut step = self.step;
            if WORDS < S::LANES {
                // A vector is longer than the unit.
                let whole = padded.0.as_mut_ptr().cast::<u8>();
                for row in 0..S::LANES {
                    from.add(row * step)
                        .copy_to_nonoverlapping(whole.add(row * 4 * S::LANES), UNIT);
                }
                (from, step) = (whole.cast_const(), 4 * S::LANES);
            }
            for first in (0..WORDS).step_by(S::LANES) {
                let to = to.0.as_mut_ptr().add(first * S::LANES);
                simd.transpose(from.add(4 * first), step, to.cast(), 4 * S::LANES);
            }
        }
    }
}

/// The scale and the minimum of a part of a block of `Q4_K`, of 6 bits each: the first four parts have bytes of
/// their own, whose upper bits belong to the last four.
#[inline(always)]
fn scale_and_least<S: Simd>(simd: S, header: [S::Vector; 4], part: u32) -> (S::Vector, S::Vector) {
    let [halves, scales, least, last] = header;
    let bit = 8 * (part % 4);
    let (scale, least) = if part < 4 {
        (simd.bits(scales, bit, 63), simd.bits(least, bit, 63))
    } else {
        let sixteen = simd.splat(16.0);
        let (upper_scale, upper_least) = (simd.bits(scales, bit + 6, 3), simd.bits(least, bit + 6, 3));
        (
            simd.fma(sixteen, upper_scale, simd.bits(last, bit, 15)),
            simd.fma(sixteen, upper_least, simd.bits(last, bit + 4, 15)),
        )
    };
    (
        simd.mul(simd.even_f16(halves), scale),
        simd.mul(simd.odd_f16(halves), least),
    )
}
