//! `Q5_0` and `Q5_1`: 32 values of 5 bits, the fifth bits in a word of their own.

use super::half;

/// A scale, and integers that are 16 too large.
#[inline(always)]
pub(in crate::quantization) fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let scale = half(block, 0);
    fives(&block[2..], values, |quantized| {
        scale * f32::from((quantized as i8).wrapping_sub(16))
    });
}

/// A scale, the smallest value, and integers from there on.
#[inline(always)]
pub(in crate::quantization) fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    fives(&block[4..], values, |quantized| {
        scale * f32::from(quantized) + minimum
    });
}

/// The results for the integers of `bytes`: 4 bytes with the fifth bits, then 16 bytes as those of `Q4_0`.
#[inline(always)]
fn fives(bytes: &[u8], values: &mut [f32; 32], value: impl Fn(u8) -> f32) {
    let fifths = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let fifth = |index: usize| ((fifths >> index & 1) as u8) << 4;
    for (index, &byte) in bytes[4..20].iter().enumerate() {
        values[index] = value(byte & 15 | fifth(index));
        values[index + 16] = value(byte >> 4 | fifth(index + 16));
    }
}
