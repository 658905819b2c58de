//! The K formats `Q2_K` to `Q6_K`: 256 values in parts of 16 or 32, each with a scale of a few bits, for which
//! the block has a scale in turn.

use super::half;

/// 2 bits a value. Parts of 16 with 4 bits of scale and 4 bits of minimum.
#[inline(always)]
pub(in crate::quantization) fn q2_k(block: &[u8; 84], values: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    let bits = &block[16..80];
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let scales = block[part];
        let scale = scale * f32::from(scales & 15);
        let minimum = minimum * f32::from(scales >> 4);
        let shift = two_bits_shift(part);
        for (value, &byte) in values.iter_mut().zip(&bits[two_bits_start(part)..]) {
            *value = scale * f32::from(byte >> shift & 3) - minimum;
        }
    }
}

/// 3 bits a value, the third in a mask that is inverted. Parts of 16 with 6 bits of scale.
#[inline(always)]
pub(in crate::quantization) fn q3_k(block: &[u8; 110], values: &mut [f32; 256]) {
    let (mask, bits, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let whole = half(block, 108);
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let low = scales[part % 8] >> (4 * (part / 8)) & 15;
        let high = scales[8 + part % 4] >> (2 * (part / 4)) & 3;
        let scale = whole * f32::from((low | high << 4) as i8 - 32);
        let shift = two_bits_shift(part);
        let third = part / 2;
        let bits = bits[two_bits_start(part)..].iter().zip(&mask[16 * (part % 2)..]);
        for (value, (&low, &high)) in values.iter_mut().zip(bits) {
            let offset = (!high >> third & 1) << 2;
            *value = scale * f32::from(((low >> shift & 3) as i8).wrapping_sub(offset as i8));
        }
    }
}

/// 4 bits a value. Parts of 32 with 6 bits of scale and 6 bits of minimum.
#[inline(always)]
pub(in crate::quantization) fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let bits = &block[16..];
    for (part, values) in values.chunks_exact_mut(32).enumerate() {
        let (scale_bits, minimum_bits) = six_bits(&block[4..16], part);
        let scale = scale * f32::from(scale_bits);
        let minimum = minimum * f32::from(minimum_bits);
        let shift = 4 * (part % 2);
        for (value, &byte) in values.iter_mut().zip(&bits[32 * (part / 2)..]) {
            *value = scale * f32::from(byte >> shift & 15) - minimum;
        }
    }
}

/// 5 bits a value, the fifth in a mask. Parts of 32 with 6 bits of scale and 6 bits of minimum.
#[inline(always)]
pub(in crate::quantization) fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (mask, bits) = (&block[16..48], &block[48..]);
    for (part, values) in values.chunks_exact_mut(32).enumerate() {
        let (scale_bits, minimum_bits) = six_bits(&block[4..16], part);
        let scale = scale * f32::from(scale_bits);
        let minimum = minimum * f32::from(minimum_bits);
        let shift = 4 * (part % 2);
        let bits = bits[32 * (part / 2)..].iter().zip(mask);
        for (value, (&low, &high)) in values.iter_mut().zip(bits) {
            let quantized = low >> shift & 15 | (high >> part & 1) << 4;
            *value = scale * f32::from(quantized) - minimum;
        }
    }
}

/// 6 bits a value, the upper two apart, which are 32 too large. Parts of 16 with 8 bits of scale.
#[inline(always)]
pub(in crate::quantization) fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let whole = half(block, 208);
    for (part, values) in values.chunks_exact_mut(16).enumerate() {
        let scale = whole * f32::from(scales[part] as i8);
        // 128 values lie in 64 bytes of low bits, 64 values in each half of them.
        let low = &low[64 * (part / 8) + 16 * (part % 4)..];
        let low_shift = 4 * (part / 4 % 2);
        let high = &high[two_bits_start(part)..];
        let high_shift = two_bits_shift(part);
        for (value, (&low, &high)) in values.iter_mut().zip(low.iter().zip(high)) {
            let quantized = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
            *value = scale * f32::from((quantized as i8).wrapping_sub(32));
        }
    }
}

/// Where the bytes with two bits of each value of `part` begin: 128 values lie in 32 bytes, 32 values in each
/// pair of bits.
#[inline(always)]
fn two_bits_start(part: usize) -> usize {
    32 * (part / 8) + 16 * (part % 2)
}

/// Where in these bytes the two bits lie.
#[inline(always)]
fn two_bits_shift(part: usize) -> usize {
    2 * (part / 2 % 4)
}

/// The scale and the minimum of `part` among 8 of each, of 6 bits, in 12 bytes. The last 4 of each have their
/// lower 4 bits in the last 4 bytes, and their upper 2 bits above those of the first 4.
#[inline(always)]
fn six_bits(bytes: &[u8], part: usize) -> (u8, u8) {
    let (scales, minima, lower) = (&bytes[..4], &bytes[4..8], &bytes[8..12]);
    match part.checked_sub(4) {
        None => (scales[part] & 63, minima[part] & 63),
        Some(part) => (
            lower[part] & 15 | scales[part] >> 6 << 4,
            lower[part] >> 4 | minima[part] >> 6 << 4,
        ),
    }
}
