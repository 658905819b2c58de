//! Decodes the most common blocks of ggml with a vector lane for each row.
//!
//! Bytes are transposed four at a time, as 32-bit words. Transposing decoded values moves four times as much. The
//! operations on each value are those of [`Quantization::decode`], so that the bits are the same.

use super::super::elements::{elements, numbers};
use super::super::simd::{MOST_LANES, Simd};
use super::quantized_rows::QuantizedRows;
use crate::Quantization;

/// Values that share a scale.
pub(super) const PART: usize = 32;
/// Bytes that are transposed at a time.
const UNIT: usize = 32;
/// Words of them, each of 4 values, or of 8 of `Q4_K`.
pub(super) const WORDS: usize = UNIT / 4;
/// Bytes from one unit to the one that is prefetched meanwhile.
const AHEAD: usize = 8 * UNIT;
/// Bytes of a block of `Q4_K` before its integers.
const Q4_K_HEADER: usize = 16;

/// Whether [`Decoder`] decodes the form.
pub(super) fn decodes(quantization: Quantization) -> bool {
    matches!(quantization, Quantization::Q8_0 | Quantization::Q4K)
}

/// A unit of each row: a vector for each word, with a lane for each row.
#[repr(align(64))]
struct Words([f32; MOST_LANES * WORDS]);

impl Words {
    fn new() -> Self {
        Self([0.0; MOST_LANES * WORDS])
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
    /// Bytes from the end of a row to the row that is read after it.
    next: usize,
}

/// What the values of a part are multiplied by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale<S: Simd> {
    scale: S::Vector,
    /// The minimum of `Q4_K`.
    least: S::Vector,
    /// Whether the upper four bits of each byte are the values.
    upper: bool,
}

/// Decodes rows of a weight, as many as a vector has lanes, one part after the other: blocks of `Q4_K` if `NIBBLES` is
/// set, else of `Q8_0`.
pub(super) struct Decoder<'a, S: Simd, const NIBBLES: bool> {
    simd: S,
    rows: Rows<'a>,
    words: Words,
    header: [S::Vector; Q4_K_HEADER / 4],
}

impl<'a, S: Simd, const NIBBLES: bool> Decoder<'a, S, NIBBLES> {
    /// A decoder of the rows from `row` on. `ahead` rows after each comes the one that is read after it.
    #[inline(always)]
    pub(super) fn new(simd: S, weight: QuantizedRows<'a>, row: usize, ahead: usize) -> Self {
        assert!(
            weight.quantization
                == if NIBBLES {
                    Quantization::Q4K
                } else {
                    Quantization::Q8_0
                },
            "blocks are decoded as others. This is a bug."
        );
        Self {
            simd,
            rows: Rows {
                bytes: &weight.bytes[row * weight.row_bytes..][..S::LANES * weight.row_bytes],
                step: weight.row_bytes,
                next: (ahead - 1) * weight.row_bytes,
            },
            words: Words::new(),
            header: [simd.zero(); Q4_K_HEADER / 4],
        }
    }

    /// Reads the part of the values from `value`, a multiple of 32, on. The first one, and the one after that which was
    /// read last, can be read.
    #[inline(always)]
    pub(super) fn read(&mut self, value: usize, is_first: bool) -> Scale<S> {
        let simd = self.simd;
        if !NIBBLES {
            let block = value / PART * Quantization::Q8_0.block_bytes();
            let scale = self.rows.halves(simd, block);
            self.rows.transpose::<S, UNIT>(simd, block + 2, &mut self.words);
            return Scale {
                scale,
                least: simd.zero(),
                upper: false,
            };
        }
        let values = Quantization::Q4K.block_values();
        let block = value / values * Quantization::Q4K.block_bytes();
        let part = value % values / PART;
        if part == 0 || is_first {
            self.rows
                .transpose::<S, Q4_K_HEADER>(simd, block, &mut self.words);
            for (index, header) in self.header.iter_mut().enumerate() {
                *header = self.words.vector(simd, index);
            }
        }
        if part.is_multiple_of(2) || is_first {
            let begin = block + Q4_K_HEADER + part / 2 * UNIT;
            self.rows.transpose::<S, UNIT>(simd, begin, &mut self.words);
        }
        let (scale, least) = scale_and_least(simd, self.header, part as u32);
        Scale {
            scale,
            least,
            upper: !part.is_multiple_of(2),
        }
    }

    /// The four values of the word at `index` of the part that was read last.
    #[inline(always)]
    pub(super) fn values(&self, scale: Scale<S>, index: usize) -> [S::Vector; 4] {
        let word = self.words.vector(self.simd, index);
        match (NIBBLES, scale.upper) {
            (false, _) => signed_bytes(self.simd, word, scale.scale),
            // Shifts by constants are cheaper.
            (true, false) => nibbles::<S, 0>(self.simd, word, (scale.scale, scale.least)),
            (true, true) => nibbles::<S, 4>(self.simd, word, (scale.scale, scale.least)),
        }
    }
}

/// Packs `count` values from `first` on, both multiples of 32, of `LANES` rows from `row` on into `to`: a vector
/// for each value, or for each pair of values rounded to bf16, `step` floats apart.
#[inline(always)]
pub(super) fn pack_lanes<S: Simd, const PAIRS: bool>(
    simd: S,
    weight: QuantizedRows<'_>,
    row: usize,
    values: (usize, usize),
    to: (&mut [f32], usize),
) {
    if weight.quantization == Quantization::Q8_0 {
        pack_with::<S, PAIRS, false>(simd, weight, row, values, to);
    } else {
        pack_with::<S, PAIRS, true>(simd, weight, row, values, to);
    }
}

#[inline(always)]
fn pack_with<S: Simd, const PAIRS: bool, const NIBBLES: bool>(
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
    let mut decoder = Decoder::<S, NIBBLES>::new(simd, weight, row, S::LANES);
    let mut to = to.as_mut_ptr();
    for value in (first..first + count).step_by(PART) {
        let scale = decoder.read(value, value == first);
        for word in 0..WORDS {
            let values = decoder.values(scale, word);
            // SAFETY: there is space for all vectors, as was asserted.
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

/// The four bits from `SHIFT`, 0 or 4, on of each byte of a word, times a scale, less a minimum. Both operations
/// round, as where a value is decoded on its own.
#[inline(always)]
fn nibbles<S: Simd, const SHIFT: u32>(
    simd: S,
    word: S::Vector,
    (scale, least): (S::Vector, S::Vector),
) -> [S::Vector; 4] {
    [
        simd.sub(simd.mul(scale, simd.four_bits(word, SHIFT)), least),
        simd.sub(simd.mul(scale, simd.four_bits(word, 8 + SHIFT)), least),
        simd.sub(simd.mul(scale, simd.four_bits(word, 16 + SHIFT)), least),
        simd.sub(simd.mul(scale, simd.four_bits(word, 24 + SHIFT)), least),
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
        assert!(
            (S::LANES - 1) * self.step + begin + 2 <= self.bytes.len(),
            "a scale lies outside of its row. This is a bug."
        );
        let mut halves = [0_u32; MOST_LANES];
        for (row, half) in halves.iter_mut().enumerate().take(S::LANES) {
            // SAFETY: the scale lies inside of the row, as was asserted.
            let bytes = unsafe {
                self.bytes
                    .as_ptr()
                    .add(row * self.step + begin)
                    .cast::<[u8; 2]>()
                    .read()
            };
            *half = u32::from(u16::from_le_bytes(bytes));
        }
        // SAFETY: there are at least as many as lanes.
        simd.even_f16(unsafe { simd.load(halves.as_ptr().cast()) })
    }

    /// Writes the words of `BYTES` bytes, at most a unit, from byte `begin` of each row on to `to`.
    #[inline(always)]
    fn transpose<S: Simd, const BYTES: usize>(&self, simd: S, begin: usize, to: &mut Words) {
        assert!(
            (S::LANES - 1) * self.step + begin + BYTES <= self.bytes.len(),
            "words lie outside of their rows. This is a bug."
        );
        if BYTES == UNIT {
            let ahead = match begin + AHEAD {
                ahead if ahead < self.step => ahead,
                ahead => ahead + self.next,
            };
            for row in 0..S::LANES {
                simd.prefetch(self.bytes.as_ptr().wrapping_add(row * self.step + ahead));
            }
        }
        let columns = S::LANES.min(BYTES / 4);
        for first in (0..BYTES / 4).step_by(columns) {
            // SAFETY: the words lie inside of the rows, as was asserted, and `to` has space for as many vectors.
            unsafe {
                let from = self.bytes.as_ptr().add(begin + 4 * first);
                let to = to.0.as_mut_ptr().add(first * S::LANES);
                simd.transpose_columns(from, self.step, columns, to.cast(), 4 * S::LANES);
            }
        }
        const { assert!(BYTES <= UNIT && BYTES.is_multiple_of(16)) }
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
