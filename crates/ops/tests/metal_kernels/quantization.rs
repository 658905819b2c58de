//! Decoding of quantised rows: the functions that kernels for Apple and for NVIDIA GPUs share, to the bits of the CPU.

use candle_core::DType;
use half::{bf16, f16};
use sd_ops::Quantization;

use super::comparison::{TYPES, random};
use super::compiler::{self, Source};
use super::launch::Launch;

const THREADS: [usize; 3] = [64, 4, 1];
const OUTPUTS: usize = 5;

/// Any bytes, so that scales are infinite and no numbers, too.
fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let random: Vec<f32> = random(&[count], seed).to_vec1().unwrap();
    random.iter().map(|value| (value * 128.0) as i8 as u8).collect()
}

fn rounded(value: f32, held_type: DType) -> f32 {
    match held_type {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

#[test]
fn rows_of_every_form() {
    if !compiler::is_there() {
        return;
    }
    for form in Quantization::ALL {
        // Where a block is a value, a row may end between the eight of a thread.
        let inputs = if form.block_values() == 1 { 301 } else { 1024 };
        let row_bytes = form.row_bytes(inputs).unwrap();
        let rows = bytes(OUTPUTS * row_bytes, form as u64 + 1);
        let mut expected = vec![0.0; OUTPUTS * inputs];
        for (row, values) in rows.chunks(row_bytes).zip(expected.chunks_mut(inputs)) {
            form.decode(row, 0, values);
        }
        assert!(
            expected.iter().any(|value| value.is_finite() && *value != 0.0),
            "{form:?}"
        );
        for held_type in TYPES {
            let groups = [inputs.div_ceil(8 * THREADS[0]), OUTPUTS.div_ceil(THREADS[1]), 1];
            let found = Launch::of(Source::Decode, "decode_rows", held_type)
                .bytes(0, rows.clone())
                .output(1, OUTPUTS * inputs)
                .parameters(
                    2,
                    &[row_bytes, inputs, OUTPUTS, form as usize].map(|number| number as u32),
                )
                .run(groups, THREADS);
            for (place, (&found, &value)) in found.iter().zip(&expected).enumerate() {
                let value = rounded(value, held_type);
                assert!(
                    found.to_bits() == value.to_bits() || (found.is_nan() && value.is_nan()),
                    "{form:?} as {held_type:?}: value {place} is {found}, not {value}"
                );
            }
        }
    }
}
