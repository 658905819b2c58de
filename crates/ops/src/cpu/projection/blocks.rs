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
            Self::Q8_0 => SCALE + PART,
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
/// Bytes of a part's scale.
const SCALE: usize = 2;
/// Parts of a block of [`Quantization::Q4K`].
const PARTS: usize = 8;
/// Where its whole numbers begin, after two scales of 16 bits and 12 bytes with those of the parts.
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

/// Values of a word of 32 bits, of which each has a byte.
const A_WORD: usize = 4;
/// Words of the whole numbers of a part.
const WORDS: usize = PART / A_WORD;

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

/// What the whole numbers of a block of [`Quantization::Q4K`] become values with: a vector for each word before them.
type Header<V> = [V; WHOLE / A_WORD];

/// Rows of a quantised weight.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    /// Bytes from row to row.
    step: usize,
    count: usize,
}

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
    let row_bytes = quantization.row_bytes(inputs);
    assert!(
        first % PART == 0
            && count % PART == 0
            && first + count <= inputs
            && rows <= S::LANES
            && (vectors == 0 || (vectors - 1) * step + S::LANES <= to.len()),
        "a quantised weight does not fit where it is laid out. This is a bug."
    );
    let rows = Rows {
        bytes: &bytes[(row * row_bytes).min(bytes.len())..][..rows * row_bytes],
        step: row_bytes,
        count: rows,
    };
    let ahead = AHEAD * quantization.row_bytes(PARTS * PART) / PARTS;
    let (mut words, mut padded) = (Words::new(), Words::new());
    let mut header: Header<S::Vector> = [simd.zero(); WHOLE / A_WORD];
    let mut to = to.as_mut_ptr();
    for part in first / PART..(first + count) / PART {
        let (block, of_block) = (part * PART / quantization.block_values(), part % PARTS);
        let block = block * quantization.block_bytes();
        let (scale, least, begin, shift) = match quantization {
            Quantization::Q8_0 => (rows.halves(simd, block), simd.zero(), block + SCALE, 0),
            Quantization::Q4K => {
                if of_block == 0 || part == first / PART {
                    rows.words(simd, block, WHOLE / A_WORD, &mut padded, &mut words);
                    for (index, header) in header.iter_mut().enumerate() {
                        *header = words.vector(simd, index);
                    }
                }
                let (scale, least) = scale_and_least(simd, header, of_block);
                // Two parts share their bytes.
                let begin = block + WHOLE + of_block / 2 * PART;
                (scale, least, begin, of_block as u32 % 2 * 4)
            }
        };
        rows.fetch(simd, begin + ahead);
        rows.words(simd, begin, WORDS, &mut padded, &mut words);
        for word in 0..WORDS {
            let word = words.vector(simd, word);
            let mut values = [simd.zero(); A_WORD];
            for (index, value) in values.iter_mut().enumerate() {
                let bit = 8 * index as u32;
                *value = match quantization {
                    Quantization::Q8_0 => simd.mul(scale, simd.signed_byte(word, bit)),
                    Quantization::Q4K => simd.sub(simd.mul(scale, simd.bits(word, bit + shift, 15)), least),
                };
            }
            // SAFETY: there is room for all vectors, which was checked above.
            unsafe {
                if PAIRS {
                    simd.store(to, simd.pair(values[0], values[1]));
                    simd.store(to.wrapping_add(step), simd.pair(values[2], values[3]));
                    to = to.wrapping_add(2 * step);
                } else {
                    for value in values {
                        simd.store(to, value);
                        to = to.wrapping_add(step);
                    }
                }
            }
        }
    }
}

impl Rows<'_> {
    /// Asks for what stands from byte `begin` of each row on, which need not lie in it.
    #[inline(always)]
    fn fetch<S: Simd>(&self, simd: S, begin: usize) {
        for row in 0..self.count {
            simd.prefetch(self.bytes.as_ptr().wrapping_add(row * self.step + begin));
        }
    }

    /// The number of 16 bits at byte `begin` of each row, widened: a lane for each row.
    #[inline(always)]
    fn halves<S: Simd>(&self, simd: S, begin: usize) -> S::Vector {
        let mut halves = [0.0; MOST_LANES];
        if self.count == S::LANES {
            // So many that compilers keep them in registers.
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

    /// Writes `count` words from byte `begin` of each row on to `to`: a vector for each word, whose lanes are the rows. Those of
    /// rows that there are not are zero.
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
        // SAFETY: the words lie inside of the rows, as was asserted, and `padded` and `to` have room for as many vectors as there
        // are lanes of as many words.
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

/// The scale and the least value of a part, of which each has 6 bits: those of the first four parts have bytes of their own,
/// whose upper bits are those of the last four.
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
