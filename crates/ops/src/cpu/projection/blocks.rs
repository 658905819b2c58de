//! Quantised weights, laid out as products take them.

use super::super::simd::Simd;

/// How the values of a row of a weight are quantised, in the forms of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// `Q8_0`: 32 whole numbers of 8 bits, after a scale of 16.
    Q8_0,
    /// `Q4_K`: 256 whole numbers of 4 bits in 8 parts, each with a scale and a least value of 6 bits, after scales of 16 bits
    /// for these two.
    Q4K,
}

impl Quantization {
    /// Values of a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::Q8_0 => PART,
            Self::Q4K => PARTS * PART,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 2 + PART,
            Self::Q4K => WHOLE + PARTS * PART / 2,
        }
    }

    /// Bytes of a row of so many values, which are whole blocks.
    fn row_bytes(self, values: usize) -> usize {
        values / self.block_values() * self.block_bytes()
    }
}

/// Values that share a scale.
const PART: usize = 32;
/// Parts of a block of [`Quantization::Q4K`].
const PARTS: usize = 8;
/// Where the scales of the parts of such a block begin, after two of 16 bits.
const SCALES: usize = 4;
/// Where its whole numbers begin.
const WHOLE: usize = 16;
/// The most lanes that there are.
const MOST_LANES: usize = 16;
/// Parts that are fetched into the cache before their turn.
const AHEAD: usize = 8;

/// A quantised weight, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) quantization: Quantization,
}

/// A part of some rows, widened.
#[repr(align(64))]
struct Widened([f32; MOST_LANES * PART]);

/// Writes `count` values from `first` on of at most `LANES` rows from `row` on, of a weight whose rows have `inputs` values, to `to`:
/// a vector for each value, or with `PAIRS` for each pair of them as bf16, `step` floats from one to the next. Rows that there
/// are not are zero. What is written begins and ends with a part.
#[inline(always)]
pub(super) fn pack<S: Simd, const PAIRS: bool>(
    simd: S,
    blocks: Blocks<'_>,
    inputs: usize,
    (row, rows): (usize, usize),
    (first, count): (usize, usize),
    to: &mut [f32],
    step: usize,
) {
    let Blocks { bytes, quantization } = blocks;
    let elements = if PAIRS { PART / 2 } else { PART };
    let vectors = count / PART * elements;
    assert!(
        first % PART == 0
            && count % PART == 0
            && rows <= S::LANES
            && (vectors == 0 || (vectors - 1) * step + S::LANES <= to.len()),
        "a quantised weight does not fit where it is laid out. This is a bug."
    );
    let row_bytes = quantization.row_bytes(inputs);
    let part_bytes = quantization.row_bytes(PARTS * PART) / PARTS;
    let mut widened = Widened([0.0; MOST_LANES * PART]);
    let mut to = to.as_mut_ptr();
    for part in first / PART..(first + count) / PART {
        for index in 0..rows {
            let row = &bytes[(row + index) * row_bytes..][..row_bytes];
            simd.prefetch(row.as_ptr().wrapping_add((part + AHEAD) * part_bytes));
            let values = &mut widened.0[index * PART..][..PART];
            match quantization {
                Quantization::Q8_0 => widen_8(simd, row, part, values),
                Quantization::Q4K => widen_4(simd, row, part, values),
            }
            if PAIRS {
                narrow(simd, values);
            }
        }
        for column in (0..elements).step_by(S::LANES) {
            // SAFETY: there are as many rows as lanes, of more elements, and `to` has room for all vectors, which was checked above.
            unsafe {
                let from = widened.0.as_ptr().add(column);
                simd.transpose(from.cast(), 4 * PART, to.cast(), 4 * step);
            }
            to = to.wrapping_add(S::LANES * step);
        }
    }
}

/// A part of a row of [`Quantization::Q8_0`].
#[inline(always)]
fn widen_8<S: Simd>(simd: S, row: &[u8], part: usize, to: &mut [f32]) {
    let block = &row[part * (2 + PART)..][..2 + PART];
    let scale = half(simd, block[0], block[1]);
    let mut whole = [0.0; PART];
    for (whole, &byte) in whole.iter_mut().zip(&block[2..]) {
        *whole = f32::from(byte as i8);
    }
    for first in (0..PART).step_by(S::LANES) {
        // SAFETY: both have as many values as a part.
        unsafe {
            let whole = simd.load(whole.as_ptr().add(first));
            simd.store(to[first..][..S::LANES].as_mut_ptr(), simd.mul(scale, whole));
        }
    }
}

/// A part of a row of [`Quantization::Q4K`].
#[inline(always)]
fn widen_4<S: Simd>(simd: S, row: &[u8], part: usize, to: &mut [f32]) {
    let size = WHOLE + PARTS * PART / 2;
    let (block, part) = (&row[part / PARTS * size..][..size], part % PARTS);
    let (scale, least) = scale_and_least(&block[SCALES..WHOLE], part);
    let scale = simd.mul(half(simd, block[0], block[1]), simd.splat(f32::from(scale)));
    let least = simd.mul(half(simd, block[2], block[3]), simd.splat(f32::from(least)));
    // Two parts share their bytes.
    let (bytes, shift) = (&block[WHOLE + part / 2 * PART..][..PART], part % 2 * 4);
    let mut whole = [0.0; PART];
    for (whole, &byte) in whole.iter_mut().zip(bytes) {
        *whole = f32::from((byte >> shift) & 15);
    }
    for first in (0..PART).step_by(S::LANES) {
        // SAFETY: both have as many values as a part.
        unsafe {
            let whole = simd.load(whole.as_ptr().add(first));
            let value = simd.sub(simd.mul(scale, whole), least);
            simd.store(to[first..][..S::LANES].as_mut_ptr(), value);
        }
    }
}

/// The scale and the least value of a part, each of 6 bits: those of the first four parts have bytes of their own, whose upper
/// bits are those of the last four.
#[inline(always)]
fn scale_and_least(bytes: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (bytes[part] & 63, bytes[part + 4] & 63);
    }
    let low = bytes[part + 4];
    (
        (low & 15) | (bytes[part - 4] >> 6) << 4,
        (low >> 4) | (bytes[part] >> 6) << 4,
    )
}

/// A number of 16 bits in every lane, widened.
#[inline(always)]
fn half<S: Simd>(simd: S, low: u8, high: u8) -> S::Vector {
    let bits = u16::from_le_bytes([low, high]);
    simd.even_f16(simd.splat(f32::from_bits(u32::from(bits))))
}

/// Puts the values of a part as pairs of bf16 in the place of its first half.
#[inline(always)]
fn narrow<S: Simd>(simd: S, values: &mut [f32]) {
    let values = values[..PART].as_mut_ptr();
    for first in (0..PART / 2).step_by(S::LANES) {
        // SAFETY: a part has twice as many values as pairs, and what is overwritten has been read before.
        unsafe {
            let from = values.add(2 * first);
            let pairs = simd.narrow(simd.load(from), simd.load(from.add(S::LANES)));
            simd.store(values.add(first), pairs);
        }
    }
}
