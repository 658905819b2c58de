//! The block formats of ggml: each block has its own scales. Values have the bits of the reference decoder,
//! `gguf.quants.dequantize` of ggml's Python package.

mod five_bits;
mod four_bits;
mod k_quants;
mod look_up;

pub(super) use five_bits::{q5_0, q5_1};
pub(super) use four_bits::{q4_0, q4_1};
pub(super) use k_quants::{q2_k, q3_k, q4_k, q5_k, q6_k};
pub(super) use look_up::{iq4_nl, iq4_xs};

use half::f16;

/// The 16-bit float at byte `at` of a block.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    // In arithmetic: the other conversion asks each time what the CPU can do.
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32_const()
}

/// `Q8_0`: a scale and 32 integers.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (value, &quantized) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(quantized as i8) * scale;
    }
}
