//! Products of few rows: reading the weight is most of the work, and a weight that the run has not used for a while is in
//! memory, not in a cache.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use criterion::Throughput;
use sd_ops::{Linear, Quantization, Result, linear};

use crate::peak::Peaks;
use crate::rate::{Rate, Unit};
use crate::shapes::FEW_ROWS;
use crate::{measure, random};

const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Bytes of all weights of a product, which take turns: more than caches hold.
const ALL_WEIGHTS: usize = 512 << 20;
/// The most weights of a product.
const MOST_WEIGHTS: usize = 512;

/// The bytes of weights that are read in a second. The most that the machine could do is limited by the bandwidth, or by
/// the products.
pub(crate) fn linears(peaks: Peaks) -> Result<()> {
    for (network, inputs, outputs) in FEW_ROWS {
        for form in [None, Some(Quantization::Q8_0), Some(Quantization::Q4K)] {
            let weight = match form {
                None => random(&[outputs, inputs])?.to_dtype(DType::BF16)?,
                Some(form) => blocks(form, outputs, inputs)?,
            };
            let bytes = weight.elem_count() * weight.dtype().size_in_bytes();
            let weights = (ALL_WEIGHTS / bytes).clamp(1, MOST_WEIGHTS);
            let weights = (0..weights).map(|_| match form {
                None => Linear::new(weight.copy()?, None),
                Some(form) => Linear::quantized(weight.copy()?, form, None),
            });
            let weights = weights.collect::<Result<Vec<_>>>()?;
            let name = form.map_or("bf16".to_owned(), |form| format!("{form:?}"));
            for rows in ROWS {
                let x = random(&[rows, inputs])?;
                let products = (2 * rows * inputs * outputs) as f64;
                let seconds = (bytes as f64 / peaks.read).max(products / peaks.bf16.unwrap_or(peaks.f32));
                let next = Cell::new(0);
                measure(
                    &mut Rate::criterion(Unit::Gigabytes, bytes as f64 / seconds),
                    &format!("linear {name}, few rows"),
                    &format!("{network}, {rows} x {inputs} to {outputs}"),
                    Throughput::Bytes(bytes as u64),
                    || {
                        next.set((next.get() + 1) % weights.len());
                        linear(&x, &weights[next.get()])
                    },
                )?;
            }
        }
    }
    Ok(())
}

/// Any blocks, but without scales that are infinite: numbers do not change how long products take.
fn blocks(form: Quantization, outputs: usize, inputs: usize) -> Result<Tensor> {
    let Some(row_bytes) = form.row_bytes(inputs) else {
        candle_core::bail!("{inputs} values are not whole blocks of {form:?}");
    };
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3b
    };
    let bytes = (0..outputs * row_bytes).map(|_| byte()).collect();
    Tensor::from_vec(bytes, (outputs, row_bytes), &Device::Cpu)
}
