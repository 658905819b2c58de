//! Blocks of 4-bit codes for levels.

use super::{e4m3, float};

/// The values of E2M1: a sign, two bits of exponent and one of fraction.
pub const E2M1: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// 64 values of `levels`, the first of a byte in its upper bits, times the scale that the block begins with.
#[inline(always)]
pub(super) fn levels(levels: &[f32; 16], block: &[u8; 36], values: &mut [f32; 64]) {
    let scale = float(block, 0);
    let (pairs, _) = values.as_chunks_mut::<2>();
    for ([first, second], &byte) in pairs.iter_mut().zip(&block[4..]) {
        *first = levels[usize::from(byte >> 4)] * scale;
        *second = levels[usize::from(byte & 15)] * scale;
    }
}

/// 16 values, the first of a byte in its lower bits, times the scale of the block, a byte, and of the row.
#[inline(always)]
pub(super) fn nvfp4(row: f32, block: &[u8; 9], values: &mut [f32; 16]) {
    let scale = e4m3(block[0]) * row;
    let (pairs, _) = values.as_chunks_mut::<2>();
    for ([first, second], &byte) in pairs.iter_mut().zip(&block[1..]) {
        *first = E2M1[usize::from(byte & 15)] * scale;
        *second = E2M1[usize::from(byte >> 4)] * scale;
    }
}
