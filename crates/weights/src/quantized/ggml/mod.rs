//! The block formats of ggml: each block has its own scales. Values have the bits of the reference decoder,
//! `gguf.quants.dequantize` of ggml's Python package.

mod five_bits;
mod four_bits;
mod k_quants;
mod look_up;

use half::f16;

use super::{Loaded, UNIT};
use crate::ElementType;

/// Whether `element_type` is a block format.
pub(super) fn has(element_type: ElementType) -> bool {
    use ElementType as E;
    matches!(
        element_type,
        E::Q4_0
            | E::Q4_1
            | E::Q5_0
            | E::Q5_1
            | E::Q8_0
            | E::Q2K
            | E::Q3K
            | E::Q4K
            | E::Q5K
            | E::Q6K
            | E::Iq4Nl
            | E::Iq4Xs
    )
}

/// Blocks from a value on.
pub(super) struct Blocks {
    element_type: ElementType,
    /// The index of the first value.
    first: usize,
    bytes: Vec<u8>,
}

impl Blocks {
    pub(super) fn new(element_type: ElementType, first: usize, bytes: Vec<u8>) -> Self {
        Self {
            element_type,
            first,
            bytes,
        }
    }
}

impl Loaded for Blocks {
    fn decode(&self, first: usize, values: &mut [f32]) {
        let block = self.element_type.block();
        let unit_bytes = UNIT / block.elements as usize * block.bytes as usize;
        let start = (first - self.first) / UNIT * unit_bytes;
        let bytes = self.bytes.get(start..).unwrap_or_default();
        match self.element_type {
            ElementType::Q4_0 => each(bytes, values, four_bits::q4_0),
            ElementType::Q4_1 => each(bytes, values, four_bits::q4_1),
            ElementType::Q5_0 => each(bytes, values, five_bits::q5_0),
            ElementType::Q5_1 => each(bytes, values, five_bits::q5_1),
            ElementType::Q2K => each(bytes, values, k_quants::q2_k),
            ElementType::Q3K => each(bytes, values, k_quants::q3_k),
            ElementType::Q4K => each(bytes, values, k_quants::q4_k),
            ElementType::Q5K => each(bytes, values, k_quants::q5_k),
            ElementType::Q6K => each(bytes, values, k_quants::q6_k),
            ElementType::Iq4Nl => each(bytes, values, look_up::iq4_nl),
            ElementType::Iq4Xs => each(bytes, values, look_up::iq4_xs),
            // `has` names all others.
            _ => each(bytes, values, q8_0),
        }
    }
}

/// Decodes whole blocks of `BYTES` bytes and `VALUES` values.
fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = values.as_chunks_mut::<VALUES>();
    for (block, values) in blocks.iter().zip(values) {
        decode(block, values);
    }
}

/// The 16-bit float at byte `at` of a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `Q8_0`: a scale and 32 integers.
fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (value, &quantized) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(quantized as i8) * scale;
    }
}
