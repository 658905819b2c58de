//! The time of products with quantised weights, as a factor to the same product with a weight of bf16: `cargo
//! bench -p sd-ops --bench quantized`, or with `-- NAME` for those whose name contains NAME.
//!
//! `SD_BENCH_INSTRUCTION_SET` selects the instruction set, as for the benchmark `operations`.
//!
//! Both products run in turns, because the speed of a machine changes more in a minute than they differ.

#![allow(clippy::print_stdout)] // It measures, for whoever reads its output.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sd_ops::{Linear, Quantization, Result, linear};

/// Rows, features that go in, features that come out.
const SHAPES: [(&str, usize, usize, usize); 7] = [
    ("SDXL 1024x1024", 2048, 1280, 1280),
    ("SDXL 1024x1024", 2048, 1280, 10240),
    ("SD 3.5 Medium", 1024, 1536, 1536),
    ("SD 3.5 Medium", 1024, 6144, 1536),
    ("T5-XXL", 256, 4096, 4096),
    ("CLIP", 77, 1280, 1280),
    ("a modulation", 1, 1536, 9216),
];

/// Pairs of products.
const PAIRS: usize = 15;

fn main() -> Result<()> {
    if let Ok(name) = std::env::var("SD_BENCH_INSTRUCTION_SET") {
        sd_ops::assume_instruction_set(&name)?;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for quantization in Quantization::ALL {
        for (network, rows, inputs, outputs) in SHAPES {
            let name = format!("{quantization:?}, {network}, {rows} x {inputs} to {outputs}");
            if filters.is_empty() || filters.iter().any(|filter| name.contains(filter)) {
                let (bf16, factors) = measure(quantization, (rows, inputs, outputs))?;
                let [low, median, high] = [1, 2, 3].map(|quarter| factors[quarter * factors.len() / 4]);
                println!(
                    "{name}: {median:.2} ({low:.2} to {high:.2}) of {:.2} ms",
                    1e3 * bf16
                );
            }
        }
    }
    Ok(())
}

/// The median time with bf16, and the factor of each pair, sorted.
fn measure(
    quantization: Quantization,
    (rows, inputs, outputs): (usize, usize, usize),
) -> Result<(f64, Vec<f64>)> {
    let Some(row_bytes) = quantization.row_bytes(inputs) else {
        return Ok((f64::NAN, vec![f64::NAN]));
    };
    let x = Tensor::randn(0.0_f32, 1.0, (rows, inputs), &Device::Cpu)?;
    let weight = Tensor::randn(0.0_f32, 1.0, (outputs, inputs), &Device::Cpu)?;
    let bf16 = Linear::new(weight.to_dtype(DType::BF16)?, None)?;
    // Any bytes, but no scale that is infinite: numbers do not change how long products take.
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3b
    };
    let bytes: Vec<u8> = (0..outputs * row_bytes).map(|_| byte()).collect();
    let bytes = Tensor::from_vec(bytes, (outputs, row_bytes), &Device::Cpu)?;
    let quantized = Linear::quantized(bytes, quantization, None)?;
    // As many products a time as take some milliseconds.
    let repeats = (1 << 33) / (2 * rows * inputs * outputs).max(1 << 27);
    let seconds = |projection: &Linear| {
        let start = Instant::now();
        for _ in 0..repeats.max(1) {
            linear(&x, projection)?;
        }
        Ok::<_, candle_core::Error>(start.elapsed().as_secs_f64() / repeats.max(1) as f64)
    };
    seconds(&bf16)?;
    seconds(&quantized)?;
    let pairs = (0..PAIRS)
        .map(|_| Ok((seconds(&bf16)?, seconds(&quantized)?)))
        .collect::<Result<Vec<_>>>()?;
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let factors = pairs.iter().map(|(bf16, quantized)| quantized / bf16).collect();
    let of_bf16 = sorted(pairs.iter().map(|pair| pair.0).collect());
    Ok((of_bf16[PAIRS / 2], sorted(factors)))
}
