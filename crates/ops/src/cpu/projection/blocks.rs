//! Packs quantised weights for integer products: as 4-bit integers, one in a byte.

use super::super::simd::{MOST_LANES, Simd};
use super::tile::VECTORS;

/// The quantisation of a weight, in ggml's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// `Q8_0`: 32 8-bit integers after a 16-bit scale.
    Q8_0,
    /// `Q4_K`: 256 4-bit integers in 8 parts, each with a 6-bit scale and a 6-bit minimum, after two 16-bit
    /// scales for these.
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
            Self::Q8_0 => SCALE + PART,
            Self::Q4K => WHOLE + PARTS * PART / 2,
        }
    }

    /// Bytes of a row of `values` values, which are whole blocks.
    fn row_bytes(self, values: usize) -> usize {
        values / self.block_values() * self.block_bytes()
    }
}

/// Values that share a scale.
pub(super) const PART: usize = 32;
/// Bytes of a part's scale.
const SCALE: usize = 2;
/// Parts of a block of [`Quantization::Q4K`].
const PARTS: usize = 8;
/// Offset of its integers, after two 16-bit scales and 12 bytes of part scales.
const WHOLE: usize = 16;
/// Bytes of a unit, in which integers are read: each byte has two 4-bit integers, which are the halves of a
/// value, or values of two parts.
const UNIT: usize = 32;
/// Units that are prefetched.
const AHEAD: usize = 8;
/// Values in a 32-bit word, one per byte.
pub(super) const A_WORD: usize = 4;
/// Words of a part.
pub(super) const WORDS: usize = PART / A_WORD;
/// Units that are packed at a time.
pub(super) const UNITS: usize = 16;

/// A quantised weight, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) quantization: Quantization,
}

impl Quantization {
    /// Planes of 4-bit integers in a value: each counts 16 times the one before.
    pub(super) fn planes(self) -> usize {
        match self {
            Self::Q8_0 => 2,
            Self::Q4K => 1,
        }
    }

    /// Values of a unit.
    pub(super) fn unit_values(self) -> usize {
        2 * UNIT / self.planes()
    }
}

/// The packed parts of some columns, one per lane, with `step` floats between consecutive vectors.
pub(super) struct Panel<'a> {
    /// A vector for every word of every plane of every part.
    pub(super) words: &'a mut [f32],
    /// Two vectors for each part: scales, and minimums if values have one plane.
    pub(super) headers: &'a mut [f32],
    pub(super) step: usize,
}

impl Panel<'_> {
    /// Vectors of words of [`UNITS`].
    pub(super) const WORDS: usize = 2 * UNITS * WORDS;
    /// Most vectors of headers of [`UNITS`].
    pub(super) const HEADERS: usize = 2 * 2 * UNITS;
}

/// Words of some rows.
#[repr(align(64))]
struct Words([f32; MOST_LANES * MOST_LANES]);

impl Words {
    fn new() -> Self {
        Self([0.0; MOST_LANES * MOST_LANES])
    }

    /// The vector at `index`.
    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, index: usize) -> S::Vector {
        let words = &self.0[index * S::LANES..][..S::LANES];
        // SAFETY: the slice is a vector long.
        unsafe { simd.load(words.as_ptr()) }
    }
}

/// The header of a block of [`Quantization::Q4K`]: a vector for each word before its integers.
type Header<V> = [V; WHOLE / A_WORD];

/// Rows of a quantised weight.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    /// Bytes from row to row.
    step: usize,
    count: usize,
}

/// Packs `count` values from `first` on, which are whole units, of at most `LANES` rows from `row` on of a
/// weight with `inputs` values per row. Missing rows are 0. Values of two planes are stored with an offset of
/// 128, from 0 to 255.
#[inline(always)]
pub(super) fn pack<S: Simd>(
    simd: S,
    blocks: Blocks<'_>,
    inputs: usize,
    (row, rows): (usize, usize),
    (first, count): (usize, usize),
    panel: Panel<'_>,
) {
    let Blocks { bytes, quantization } = blocks;
    let values = quantization.unit_values();
    let (units, parts) = (count / values, count / PART);
    let Panel {
        words: to,
        headers,
        step,
    } = panel;
    let fit = |vectors: usize, to: &[f32]| vectors == 0 || (vectors - 1) * step + S::LANES <= to.len();
    let row_bytes = quantization.row_bytes(inputs);
    assert!(
        first % values == 0
            && count % values == 0
            && first + count <= inputs
            && rows <= S::LANES
            && fit(2 * WORDS * units, to)
            && fit(2 * parts, headers),
        "a quantised weight does not fit where it is laid out. This is a bug."
    );
    let rows = Rows {
        bytes: &bytes[(row * row_bytes).min(bytes.len())..][..rows * row_bytes],
        step: row_bytes,
        count: rows,
    };
    let ahead = AHEAD * quantization.row_bytes(PARTS * PART) * values / (PARTS * PART);
    let (mut words, mut padded) = (Words::new(), Words::new());
    let mut header: Header<S::Vector> = [simd.zero(); WHOLE / A_WORD];
    let (mut to, mut header_to) = (to.as_mut_ptr(), headers.as_mut_ptr());
    for value in (first..first + count).step_by(values) {
        let block = value / quantization.block_values() * quantization.block_bytes();
        let part = value % quantization.block_values() / PART;
        let begin = match quantization {
            Quantization::Q8_0 => {
                // SAFETY: there is space for all vectors, which was checked above.
                unsafe { simd.store(header_to, rows.halves(simd, block)) };
                header_to = header_to.wrapping_add(2 * step);
                block + SCALE
            }
            Quantization::Q4K => {
                if part == 0 || value == first {
                    rows.words(simd, block, WHOLE / A_WORD, &mut padded, &mut words);
                    for (index, header) in header.iter_mut().enumerate() {
                        *header = words.vector(simd, index);
                    }
                }
                for part in [part, part + 1] {
                    let (scale, least) = scale_and_least(simd, header, part);
                    // SAFETY: as above.
                    unsafe {
                        simd.store(header_to, scale);
                        simd.store(header_to.wrapping_add(step), least);
                    }
                    header_to = header_to.wrapping_add(2 * step);
                }
                block + WHOLE + part / 2 * UNIT
            }
        };
        rows.fetch(simd, begin + ahead);
        rows.words(simd, begin, WORDS, &mut padded, &mut words);
        // Flipping the sign bit adds 128.
        let toggled = match quantization {
            Quantization::Q8_0 => 8,
            Quantization::Q4K => 0,
        };
        for word in 0..WORDS {
            let word = words.vector(simd, word);
            // SAFETY: as above.
            unsafe {
                simd.store(to, simd.nibbles(word, 0, 0));
                simd.store(to.wrapping_add(WORDS * step), simd.nibbles(word, 4, toggled));
            }
            to = to.wrapping_add(step);
        }
        to = to.wrapping_add(WORDS * step);
    }
}

impl Rows<'_> {
    /// Prefetches each row from byte `begin` on, or past its end the corresponding row of the next tile.
    #[inline(always)]
    fn fetch<S: Simd>(&self, simd: S, mut begin: usize) {
        if begin >= self.step {
            begin += (VECTORS * S::LANES - 1) * self.step;
        }
        for row in 0..self.count {
            simd.prefetch(self.bytes.as_ptr().wrapping_add(row * self.step + begin));
        }
    }

    /// The 16-bit float at byte `begin` of each row, widened: a lane for each row.
    #[inline(always)]
    fn halves<S: Simd>(&self, simd: S, begin: usize) -> S::Vector {
        let mut halves = [0.0; MOST_LANES];
        if self.count == S::LANES {
            // A constant count, so that the compiler keeps them in registers.
            for (row, half) in halves.iter_mut().enumerate().take(S::LANES) {
                *half = self.half(row, begin);
            }
        } else {
            for (row, half) in halves.iter_mut().enumerate().take(self.count) {
                *half = self.half(row, begin);
            }
        }
        // SAFETY: there are at least as many as lanes.
        simd.even_f16(unsafe { simd.load(halves.as_ptr()) })
    }

    #[inline(always)]
    fn half(&self, row: usize, begin: usize) -> f32 {
        let bytes = &self.bytes[row * self.step + begin..][..2];
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    /// Writes `count` words from byte `begin` of each row on to `to`: a vector for each word, with a lane for
    /// each row. Missing rows are 0.
    #[inline(always)]
    fn words<S: Simd>(&self, simd: S, begin: usize, count: usize, padded: &mut Words, to: &mut Words) {
        let bytes = count * A_WORD;
        let width = count.next_multiple_of(S::LANES);
        assert!(
            width <= MOST_LANES
                && self.count <= S::LANES
                && (self.count == 0 || (self.count - 1) * self.step + begin + bytes <= self.bytes.len()),
            "words lie outside of their rows. This is a bug."
        );
        // SAFETY: the words lie inside of the rows, as was asserted, and `padded` and `to` have space for as
        // many vectors as there are lanes of as many words.
        unsafe {
            let (mut from, mut step) = (self.bytes.as_ptr().wrapping_add(begin), self.step);
            if self.count < S::LANES || count < width {
                let whole = padded.0.as_mut_ptr().cast::<u8>();
                if self.count < S::LANES {
                    padded.0.fill(0.0);
                }
                for row in 0..self.count {
                    from.add(row * step)
                        .copy_to_nonoverlapping(whole.add(row * A_WORD * width), bytes);
                }
                (from, step) = (whole, A_WORD * width);
            }
            for first in (0..width).step_by(S::LANES) {
                let to = to.0.as_mut_ptr().add(first * S::LANES);
                simd.transpose(from.add(first * A_WORD), step, to.cast(), A_WORD * S::LANES);
            }
        }
    }
}

/// The 6-bit scale and minimum of a part: the first four parts have bytes of their own, whose upper bits
/// belong to the last four.
#[inline(always)]
fn scale_and_least<S: Simd>(simd: S, header: Header<S::Vector>, part: usize) -> (S::Vector, S::Vector) {
    let [halves, scales, least, last] = header;
    let bit = 8 * (part as u32 % 4);
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
