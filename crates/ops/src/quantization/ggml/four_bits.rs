//! `Q4_0` and `Q4_1`: 32 values of 4 bits, the first half of them in the low bits of the bytes.

use super::half;

/// A scale, and integers that are 8 too large.
#[inline(always)]
pub(in crate::quantization) fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half(block, 0);
    nibbles(&block[2..], values, |quantized| {
        scale * f32::from((quantized as i8).wrapping_sub(8))
    });
}

/// A scale, the smallest value, and integers from there on.
#[inline(always)]
pub(in crate::quantization) fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    nibbles(&block[4..], values, |quantized| {
        scale * f32::from(quantized) + minimum
    });
}

/// Fills `values` with the results for the low bits of `bytes`, then for the high bits.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8], values: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = values.split_at_mut(bytes.len());
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = value(byte & 15);
        *high = value(byte >> 4);
    }
}
