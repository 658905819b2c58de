//! Weights of 16 bits as they are multiplied by.

use half::bf16;

use crate::cpu::kernel::Values;
use crate::cpu::simd::Simd;

/// Writes `to.len()` weights from the one at `first` on as 32-bit floats.
#[inline(always)]
pub(super) fn widen<S: Simd>(simd: S, weight: Values<'_>, first: usize, to: &mut [f32]) {
    let range = first..first + to.len();
    match weight {
        Values::F32(values) => to.copy_from_slice(&values[range]),
        Values::Bf16(values) => {
            let (from, mut index) = (&values[range], 0);
            while index + S::LANES <= to.len() {
                // SAFETY: both have so many values from there on.
                unsafe {
                    let values = simd.load_bf16(from.as_ptr().add(index));
                    simd.store(to.as_mut_ptr().add(index), values);
                }
                index += S::LANES;
            }
            for (to, from) in to[index..].iter_mut().zip(&from[index..]) {
                *to = from.to_f32();
            }
        }
        Values::F16(values) => {
            let (from, mut index) = (&values[range], 0);
            while index + S::LANES <= to.len() {
                // SAFETY: as above.
                unsafe {
                    let values = simd.load_f16(from.as_ptr().add(index));
                    simd.store(to.as_mut_ptr().add(index), values);
                }
                index += S::LANES;
            }
            for (to, from) in to[index..].iter_mut().zip(&from[index..]) {
                *to = from.to_f32();
            }
        }
    }
}

/// Writes the weights of consecutive channels, `places` of each, as pairs of two channels. The last channel has none beside
/// it where their number is odd.
#[inline(always)]
pub(super) fn pair_up(weights: &[bf16], places: usize, to: &mut [f32]) {
    let channels = weights.chunks(2 * places);
    for (weights, to) in channels.zip(to.chunks_exact_mut(places)) {
        let (even, odd) = weights.split_at(places);
        if odd.is_empty() {
            for (to, even) in to.iter_mut().zip(even) {
                *to = f32::from_bits(u32::from(even.to_bits()));
            }
        } else {
            for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
                *to = f32::from_bits(u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16);
            }
        }
    }
}

/// Two floats rounded to the nearest bf16, the even one of two, as a pair.
#[inline(always)]
pub(super) fn round_to_pair(even: f32, odd: f32) -> f32 {
    f32::from_bits(rounded(even) >> 16 | (rounded(odd) & 0xFFFF_0000))
}

/// A float whose upper half is the nearest bf16.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    // What is not a number stays so.
    if value.is_nan() { bits | 0x40_0000 } else { nearest }
}
