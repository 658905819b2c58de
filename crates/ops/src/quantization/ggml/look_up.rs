//! `IQ4_NL` and `IQ4_XS`: 4 bits that select one of 16 unevenly spaced integers.

use super::four_bits::nibbles;
use super::half;

/// The integers.
const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// A scale for 32 values.
#[inline(always)]
pub(in crate::quantization) fn iq4_nl(block: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half(block, 0);
    nibbles(&block[2..], values, |index| scale * level(index));
}

/// 256 values in parts of 32, each with a scale of 6 bits that is 32 too large.
#[inline(always)]
pub(in crate::quantization) fn iq4_xs(block: &[u8; 136], values: &mut [f32; 256]) {
    let scale = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let parts = values.chunks_exact_mut(32).zip(block[8..].chunks_exact(16));
    for (part, (values, bytes)) in parts.enumerate() {
        let low = block[4 + part / 2] >> (4 * (part % 2)) & 15;
        let bits = low | ((high >> (2 * part) & 3) as u8) << 4;
        let scale = scale * f32::from(bits as i8 - 32);
        nibbles(bytes, values, |index| scale * level(index));
    }
}

#[inline(always)]
fn level(index: u8) -> f32 {
    f32::from(LEVELS[usize::from(index & 15)])
}
