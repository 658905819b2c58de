//! 8-bit floats, and blocks of them.

/// The value of `byte` as E4M3 (4 bits of exponent, 3 of fraction) without infinities: `float8_e4m3fn`.
#[inline(always)]
pub fn e4m3(byte: u8) -> f32 {
    widened::<3, 7>(byte, 127)
}

/// The value of `byte` as E5M2 (5 bits of exponent, 2 of fraction) by the rules of IEEE 754: `float8_e5m2`.
#[inline(always)]
pub fn e5m2(byte: u8) -> f32 {
    widened::<2, 15>(byte, 124)
}

/// The value of `byte` as a float of 8 bits with `FRACTION` bits of fraction and exponents that are `BIAS` too
/// large. Magnitudes from `special` on are infinite or not numbers; they keep their fraction, as in PyTorch.
#[inline(always)]
fn widened<const FRACTION: u32, const BIAS: u32>(byte: u8, special: u32) -> f32 {
    let magnitude = u32::from(byte & 127);
    // The exponent and the fraction move together.
    let normal = (magnitude << (23 - FRACTION)) + ((127 - BIAS) << 23);
    // Without an implicit 1, the fraction counts multiples of the smallest number.
    let smallest = f32::from_bits((127 + 1 - BIAS - FRACTION) << 23);
    let subnormal = (magnitude as i32 as f32 * smallest).to_bits();
    let bits = if magnitude < 1 << FRACTION {
        subnormal
    } else {
        normal
    };
    let bits = if magnitude >= special {
        special_bits(bits)
    } else {
        bits
    };
    f32::from_bits(bits | u32::from(byte >> 7) << 31)
}

/// Infinity, or with a fraction no number, with the fraction of `bits`.
#[inline(always)]
fn special_bits(bits: u32) -> u32 {
    let fraction = bits & 0x7f_ffff;
    let quiet = if fraction == 0 { 0 } else { 0x40_0000 };
    0x7f80_0000 | fraction | quiet
}

/// 32 values as E4M3 after their scale: the exponent of a 32-bit float.
#[inline(always)]
pub(super) fn mxfp8(block: &[u8; 33], values: &mut [f32; 32]) {
    let scale = f32::from_bits(u32::from(block[0]) << 23);
    for (value, &byte) in values.iter_mut().zip(&block[1..]) {
        *value = e4m3(byte) * scale;
    }
}
