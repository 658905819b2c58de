//! Weights that follow from their names alone: those of `tools/reference/seeded.py`, bit by bit.

use half::f16;
use rayon::prelude::*;

/// The hash FNV-1a of `name`.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The number at `index` of the generator SplitMix64, from -0.5 to below 0.5.
fn uniform(seed: u64, index: usize) -> f32 {
    let mut state = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    (state >> 40) as f32 / (1 << 24) as f32 - 0.5
}

/// Mean and spread of the tensor `name`.
fn distribution(name: &str, shape: &[usize]) -> (f32, f32) {
    let is_embedding = ["shared.weight", "attention_bias.weight", "pos_embed.pos_embed"]
        .iter()
        .any(|ending| name.ends_with(ending));
    if shape.len() == 1 && name.ends_with(".weight") {
        (1.0, 0.6)
    } else if shape.len() == 1 {
        (0.0, 0.4)
    } else if name.contains("embedding.weight") || is_embedding {
        (0.0, 2.0)
    } else if name.ends_with("vae.decoder.conv_out.weight") {
        (0.0, 0.09)
    } else {
        let inputs = shape[1..].iter().product::<usize>() as f32;
        (0.0, (3.4 / f64::from(inputs.sqrt())) as f32)
    }
}

/// The values of the tensor `name`, little-endian.
pub(crate) fn values(name: &str, shape: &[usize]) -> Vec<u8> {
    let (mean, spread) = distribution(name, shape);
    let seed = seed(name);
    let count = shape.iter().product::<usize>();
    let mut bytes = vec![0; 2 * count];
    bytes
        .par_chunks_mut(2)
        .enumerate()
        .with_min_len(1 << 14)
        .for_each(|(index, to)| {
            let value = f16::from_f32(mean + spread * uniform(seed, index));
            to.copy_from_slice(&value.to_le_bytes());
        });
    bytes
}
