//! The forms in which the weight of a projection stays quantised in memory, and decoding its values: no other
//! place decodes them.
//!
//! A weight of `[outputs, inputs]` values is held as the bytes of its rows, `[outputs, bytes of a row]`. A row
//! is decoded on its own: it consists of a header, which may be empty, and whole blocks with their scales.
//! Blocks of ggml are held as files have them. Other files keep scales in tensors of their own, which are put
//! into the rows when they are read.

mod float8;
mod four_bits;
mod ggml;

pub use self::float8::{e4m3, e5m2};
pub use self::four_bits::E2M1;

use crate::cpu::simd::{InstructionSet, Kernel, Simd};

/// How the rows of a quantised weight are decoded, to 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// ggml's `Q4_0`: 4 bits, with a scale for 32 values.
    Q4_0,
    /// ggml's `Q4_1`: 4 bits, with a scale and a minimum for 32 values.
    Q4_1,
    /// ggml's `Q5_0`: 5 bits, with a scale for 32 values.
    Q5_0,
    /// ggml's `Q5_1`: 5 bits, with a scale and a minimum for 32 values.
    Q5_1,
    /// ggml's `Q8_0`: 8 bits, with a scale for 32 values.
    Q8_0,
    /// ggml's `Q2_K`: 2 bits, in blocks of 256 values.
    Q2K,
    /// ggml's `Q3_K`: 3 bits, in blocks of 256 values.
    Q3K,
    /// ggml's `Q4_K`: 4 bits, in blocks of 256 values.
    Q4K,
    /// ggml's `Q5_K`: 5 bits, in blocks of 256 values.
    Q5K,
    /// ggml's `Q6_K`: 6 bits, in blocks of 256 values.
    Q6K,
    /// ggml's `IQ4_NL`: 4 bits that select an integer, with a scale for 32 values.
    Iq4Nl,
    /// ggml's `IQ4_XS`: 4 bits that select an integer, in blocks of 256 values.
    Iq4Xs,
    /// 8-bit floats E4M3 without infinities, `float8_e4m3fn`.
    E4M3,
    /// 8-bit floats E5M2, `float8_e5m2`.
    E5M2,
    /// [`E4M3`](Self::E4M3) times the row's scale, a 32-bit float before the values.
    ScaledE4M3,
    /// [`E5M2`](Self::E5M2) times the row's scale, a 32-bit float before the values.
    ScaledE5M2,
    /// 8-bit integers times the row's scale, and then a factor: 32-bit floats before the values.
    ScaledInt8,
    /// 4 bits that select one of the row's 16 levels, 32-bit floats before all blocks: `nf4` and `fp4` of
    /// bitsandbytes. A block has 64 values after their scale, a 32-bit float. A byte has the first of two values
    /// in its upper bits.
    FourBits,
    /// 32 values as [`E4M3`](Self::E4M3) after their scale, the exponent of a 32-bit float in a byte.
    Mxfp8,
    /// 16 floats E2M1 after their scale, a byte as [`E4M3`](Self::E4M3), times the row's scale, a 32-bit float
    /// before all blocks. A byte has the first of two values in its lower bits.
    Nvfp4,
}

/// Bytes of a scale or a level.
const SCALE: usize = size_of::<f32>();

/// The values that are decoded at a time: of every form a whole number of blocks.
pub(crate) const UNIT: usize = 256;

impl Quantization {
    /// Every form.
    pub const ALL: [Self; 20] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::E4M3,
        Self::E5M2,
        Self::ScaledE4M3,
        Self::ScaledE5M2,
        Self::ScaledInt8,
        Self::FourBits,
        Self::Mxfp8,
        Self::Nvfp4,
    ];

    /// Values and bytes of a block, and bytes of a row's header.
    const fn layout(self) -> (usize, usize, usize) {
        match self {
            Self::Q4_0 | Self::Iq4Nl => (32, 18, 0),
            Self::Q4_1 => (32, 20, 0),
            Self::Q5_0 => (32, 22, 0),
            Self::Q5_1 => (32, 24, 0),
            Self::Q8_0 => (32, 34, 0),
            Self::Q2K => (256, 84, 0),
            Self::Q3K => (256, 110, 0),
            Self::Q4K => (256, 144, 0),
            Self::Q5K => (256, 176, 0),
            Self::Q6K => (256, 210, 0),
            Self::Iq4Xs => (256, 136, 0),
            Self::E4M3 | Self::E5M2 => (1, 1, 0),
            Self::ScaledE4M3 | Self::ScaledE5M2 => (1, 1, SCALE),
            Self::ScaledInt8 => (1, 1, 2 * SCALE),
            Self::FourBits => (64, SCALE + 32, 16 * SCALE),
            Self::Mxfp8 => (32, 1 + 32, 0),
            Self::Nvfp4 => (16, 1 + 8, SCALE),
        }
    }

    /// Values of a block. A row has whole blocks.
    pub const fn block_values(self) -> usize {
        self.layout().0
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.layout().1
    }

    /// Bytes of a row before its blocks.
    pub const fn header_bytes(self) -> usize {
        self.layout().2
    }

    /// Bytes of a row of `values` values. `None` if these are not whole blocks.
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        let (block, bytes, header) = self.layout();
        let blocks = values.is_multiple_of(block).then_some(values / block)?;
        blocks.checked_mul(bytes)?.checked_add(header)
    }

    /// Values of a row of `bytes` bytes. `None` if these are not whole blocks after a header.
    pub fn row_values(self, bytes: usize) -> Option<usize> {
        let (block, block_bytes, header) = self.layout();
        let blocks = bytes.checked_sub(header)?;
        let blocks = blocks
            .is_multiple_of(block_bytes)
            .then_some(blocks / block_bytes)?;
        blocks.checked_mul(block)
    }

    /// Fills `values` with those of `row` from the index `first` on. Both ends are ends of blocks.
    ///
    /// # Panics
    /// The row has fewer values, or `first` or the number of `values` is not a multiple of
    /// [`block_values`](Self::block_values).
    pub fn decode(self, row: &[u8], first: usize, values: &mut [f32]) {
        let (step, rows) = (values.len(), 1);
        InstructionSet::best().run(Decode {
            quantization: self,
            bytes: row,
            row_bytes: row.len(),
            rows,
            first,
            count: step,
            to: values,
            step,
        });
    }

    /// As [`decode`](Self::decode), inlined into a kernel.
    #[inline(always)]
    fn decode_inlined(self, row: &[u8], first: usize, values: &mut [f32]) {
        let (block, bytes, header) = self.layout();
        let blocks = &row[header..][first / block * bytes..][..values.len() / block * bytes];
        match self {
            Self::Q4_0 => each(blocks, values, ggml::q4_0),
            Self::Q4_1 => each(blocks, values, ggml::q4_1),
            Self::Q5_0 => each(blocks, values, ggml::q5_0),
            Self::Q5_1 => each(blocks, values, ggml::q5_1),
            Self::Q8_0 => each(blocks, values, ggml::q8_0),
            Self::Q2K => each(blocks, values, ggml::q2_k),
            Self::Q3K => each(blocks, values, ggml::q3_k),
            Self::Q4K => each(blocks, values, ggml::q4_k),
            Self::Q5K => each(blocks, values, ggml::q5_k),
            Self::Q6K => each(blocks, values, ggml::q6_k),
            Self::Iq4Nl => each(blocks, values, ggml::iq4_nl),
            Self::Iq4Xs => each(blocks, values, ggml::iq4_xs),
            Self::E4M3 => bytewise(blocks, values, e4m3),
            Self::E5M2 => bytewise(blocks, values, e5m2),
            Self::ScaledE4M3 => scaled(row, blocks, values, e4m3),
            Self::ScaledE5M2 => scaled(row, blocks, values, e5m2),
            Self::ScaledInt8 => {
                let factor = float(row, 1);
                scaled(row, blocks, values, |byte| f32::from(byte as i8));
                for value in values {
                    *value *= factor;
                }
            }
            Self::FourBits => {
                let mut levels = [0.0; 16];
                for (index, level) in levels.iter_mut().enumerate() {
                    *level = float(row, index);
                }
                each(
                    blocks,
                    values,
                    #[inline(always)]
                    |block, values| four_bits::levels(&levels, block, values),
                );
            }
            Self::Mxfp8 => each(blocks, values, float8::mxfp8),
            Self::Nvfp4 => {
                let scale = float(row, 0);
                each(
                    blocks,
                    values,
                    #[inline(always)]
                    |block, values| four_bits::nvfp4(scale, block, values),
                );
            }
        }
    }
}

/// Decodes whole blocks of `BYTES` bytes and `VALUES` values.
#[inline(always)]
fn each<const BYTES: usize, const VALUES: usize>(
    blocks: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, _) = blocks.as_chunks();
    let (values, _) = values.as_chunks_mut();
    for (block, values) in blocks.iter().zip(values) {
        // Of its own, the compiler sees that writing them changes no byte of the block, and uses vectors.
        let mut decoded = [0.0; VALUES];
        decode(block, &mut decoded);
        *values = decoded;
    }
}

/// Decodes a value from each byte.
#[inline(always)]
fn bytewise(bytes: &[u8], values: &mut [f32], decode: impl Fn(u8) -> f32) {
    for (&byte, value) in bytes.iter().zip(values) {
        *value = decode(byte);
    }
}

/// Decodes a value from each byte, times the scale of the row.
#[inline(always)]
fn scaled(row: &[u8], bytes: &[u8], values: &mut [f32], decode: impl Fn(u8) -> f32) {
    let scale = float(row, 0);
    for (&byte, value) in bytes.iter().zip(values) {
        *value = decode(byte) * scale;
    }
}

/// The 32-bit float at `index`, counted in such floats.
#[inline(always)]
fn float(bytes: &[u8], index: usize) -> f32 {
    let bytes = &bytes[index * SCALE..][..SCALE];
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Decodes some values of some rows.
pub(crate) struct Decode<'a> {
    pub(crate) quantization: Quantization,
    /// The rows, one after the other.
    pub(crate) bytes: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    /// The first value of each row, and their number: whole blocks.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The values, those of a row at multiples of `step`.
    pub(crate) to: &'a mut [f32],
    pub(crate) step: usize,
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let block = self.quantization.block_values();
        assert!(
            self.first.is_multiple_of(block) && self.count.is_multiple_of(block),
            "values from {} on, {} of them, are not blocks of {block}. This is a bug.",
            self.first,
            self.count
        );
        for row in 0..self.rows {
            let bytes = &self.bytes[row * self.row_bytes..][..self.row_bytes];
            let to = &mut self.to[row * self.step..][..self.count];
            self.quantization.decode_inlined(bytes, self.first, to);
        }
    }
}

#[cfg(test)]
mod tests;
