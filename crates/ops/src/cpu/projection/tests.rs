//! Projections by every instruction set that the CPU has.

use half::{bf16, f16};
use proptest::prelude::*;

use super::super::activation::Activation;
use super::super::kernel::Values;
use super::super::simd::InstructionSet;
use super::{Epilogue, Projection, QuantizedRows, Weight, project};
use crate::Quantization;

/// Numbers between -1 and 1, the same for the same seed.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A weight in each type that it can have.
struct Weights {
    wide: Vec<f32>,
    brain: Vec<bf16>,
    half: Vec<f16>,
}

impl Weights {
    fn new(values: Vec<f32>) -> Self {
        Self {
            brain: values.iter().map(|&value| bf16::from_f32(value)).collect(),
            half: values.iter().map(|&value| f16::from_f32(value)).collect(),
            wide: values,
        }
    }

    fn all(&self) -> [Values<'_>; 3] {
        [
            Values::F32(&self.wide),
            Values::Bf16(&self.brain),
            Values::F16(&self.half),
        ]
    }
}

fn widened(values: Values<'_>) -> Vec<f32> {
    match values {
        Values::F32(values) => values.to_vec(),
        Values::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        Values::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
    }
}

/// Whether activations are rounded to bf16 for this weight.
fn rounds(set: InstructionSet, weight: Values<'_>) -> bool {
    set.has_bf16_dot() && matches!(weight, Values::Bf16(_))
}

/// The activations that a product in bf16 sees: each is rounded, and sums are of 32 bits.
fn rounded_to_bf16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&value| bf16::from_f32(value).to_f32()).collect()
}

/// `x * weight^T + bias` in 64 bits.
fn plain(x: &[f32], rows: usize, projection: Projection<'_>) -> Vec<f64> {
    let Projection {
        weight,
        bias,
        inputs,
        outputs,
    } = projection;
    let Weight::Values(weight) = weight else {
        panic!("a quantised weight is compared with its values")
    };
    let weight = widened(weight);
    let mut results = Vec::new();
    for row in 0..rows {
        for column in 0..outputs {
            let products = x[row * inputs..][..inputs]
                .iter()
                .zip(&weight[column * inputs..][..inputs]);
            let sum: f64 = products
                .map(|(&x, &weight)| f64::from(x) * f64::from(weight))
                .sum();
            results.push(sum + bias.map_or(0.0, |bias| f64::from(bias[column])));
        }
    }
    results
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let difference: f64 = found
        .iter()
        .zip(expected)
        .map(|(&a, b)| (f64::from(a) - b).powi(2))
        .sum();
    let size: f64 = expected.iter().map(|value| value * value).sum();
    assert!(
        difference.sqrt() <= tolerance * size.sqrt().max(1e-12),
        "relative error {}",
        (difference / size).sqrt()
    );
}

#[track_caller]
fn equal(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let mut both = found.iter().zip(expected);
    if let Some(index) = both.position(|(found, expected)| found.to_bits() != expected.to_bits()) {
        let (found, expected) = (found[index], expected[index]);
        panic!("not equal to the bit at {index}: {found:e}, not {expected:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agree_with_the_plain_definition(
        (rows, inputs, outputs) in (0_usize..40, 0_usize..80, 1_usize..150),
        longer: bool,
        biased: bool,
    ) {
        let inputs = if longer { inputs * 17 } else { inputs };
        let (x, bias) = (random(rows * inputs, 1), random(outputs, 3));
        let weights = Weights::new(random(outputs * inputs, 2));
        for set in InstructionSet::all() {
            for weight in weights.all() {
                let bias = biased.then_some(bias.as_slice());
                let projection = Projection { weight: weight.into(), bias, inputs, outputs };
                let found = project(set, &x, rows, projection, Epilogue::Identity);
                let multiplied = if rounds(set, weight) { rounded_to_bf16(&x) } else { x.clone() };
                close(&found, &plain(&multiplied, rows, projection), 3e-6);
            }
        }
    }

    #[test]
    fn a_result_depends_on_its_own_row_and_column_alone(
        (rows, inputs, outputs) in (2_usize..40, 1_usize..1100, 2_usize..150),
        (row, column) in (0_usize..40, 0_usize..150),
    ) {
        let (row, column) = (row % rows, column % outputs);
        let x = random(rows * inputs, 1);
        let weights = Weights::new(random(outputs * inputs, 2));
        let rest = Weights::new(weights.wide[column * inputs..].to_vec());
        for set in InstructionSet::all() {
            for (weight, rest) in weights.all().into_iter().zip(rest.all()) {
                let projection = Projection { weight: weight.into(), bias: None, inputs, outputs };
                let whole = project(set, &x, rows, projection, Epilogue::Identity);
                let of_row = project(set, &x[row * inputs..][..inputs], 1, projection, Epilogue::Identity);
                equal(&of_row, &whole[row * outputs..][..outputs]);
                let others = outputs - column;
                let projection = Projection { weight: rest.into(), outputs: others, ..projection };
                let of_columns = project(set, &x, rows, projection, Epilogue::Identity);
                for row in 0..rows {
                    equal(&of_columns[row * others..][..others], &whole[row * outputs + column..][..others]);
                }
            }
        }
    }

    #[test]
    fn ends_are_those_of_the_results(
        (rows, inputs, half) in (1_usize..40, 1_usize..60, 1_usize..150),
        tokens in 1_usize..9,
    ) {
        let outputs = 2 * half;
        let (x, bias) = (random(rows * inputs, 1), random(outputs, 3));
        let x: Vec<f32> = x.iter().map(|value| 3.0 * value).collect();
        let (beside, gates) = (random(rows * outputs, 4), random(rows.div_ceil(tokens) * outputs, 5));
        let weights = Weights::new(random(outputs * inputs, 2));
        for set in InstructionSet::all() {
            for weight in weights.all() {
                let projection = Projection { weight: weight.into(), bias: Some(&bias), inputs, outputs };
                let results = project(set, &x, rows, projection, Epilogue::Identity);
                let of = |index: usize| f64::from(results[index]);
                let check = |epilogue: Epilogue<'_>, expected: &dyn Fn(usize) -> f64| {
                    let found = project(set, &x, rows, projection, epilogue);
                    let expected: Vec<f64> = (0..found.len()).map(expected).collect();
                    close(&found, &expected, 2e-6);
                };
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                let gelu = |x: f64| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2.0_f64.sqrt()));
                let gelu_tanh =
                    |x: f64| x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3)));
                check(Epilogue::Activation(Activation::Gelu), &|index| gelu(of(index)));
                check(Epilogue::Activation(Activation::GeluTanh), &|index| gelu_tanh(of(index)));
                check(Epilogue::Activation(Activation::QuickGelu), &|index| {
                    of(index) * sigmoid(1.702 * of(index))
                });
                check(Epilogue::Activation(Activation::Silu), &|index| of(index) * sigmoid(of(index)));
                check(Epilogue::Geglu, &|index| {
                    let first = index / half * outputs + index % half;
                    of(first) * gelu(of(first + half))
                });
                check(Epilogue::GatedGeluTanh { gates: &beside }, &|index| {
                    gelu_tanh(f64::from(beside[index])) * of(index)
                });
                check(Epilogue::Residual { residual: &beside }, &|index| f64::from(beside[index]) + of(index));
                let epilogue = Epilogue::GatedResidual { residual: &beside, gates: &gates, tokens };
                check(epilogue, &|index| {
                    let gate = gates[index / outputs / tokens * outputs + index % outputs];
                    f64::from(beside[index]) + f64::from(gate) * of(index)
                });
            }
        }
    }
}

#[test]
fn widening_changes_no_bit() {
    let (rows, inputs, outputs) = (37, 1111, 75);
    let x = random(rows * inputs, 1);
    let weights = Weights::new(random(outputs * inputs, 2));
    for set in InstructionSet::all() {
        for weight in weights.all() {
            let wide = widened(weight);
            let of = |weight| {
                let projection = Projection {
                    weight: Weight::from(weight),
                    bias: None,
                    inputs,
                    outputs,
                };
                project(set, &x, rows, projection, Epilogue::Identity)
            };
            if !rounds(set, weight) {
                equal(&of(weight), &of(Values::F32(&wide)));
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_and_column() {
    let (rows, inputs, outputs) = (20, 70, 50);
    for special in [f32::NAN, f32::INFINITY] {
        let mut x = random(rows * inputs, 1);
        let mut weight = random(outputs * inputs, 2);
        x[7 * inputs + 69] = special;
        weight[33 * inputs + 11] = special;
        let weights = Weights::new(weight);
        for set in InstructionSet::all() {
            for weight in weights.all() {
                let projection = Projection {
                    weight: Weight::from(weight),
                    bias: None,
                    inputs,
                    outputs,
                };
                for (index, found) in project(set, &x, rows, projection, Epilogue::Identity)
                    .iter()
                    .enumerate()
                {
                    let touched = index / outputs == 7 || index % outputs == 33;
                    assert_eq!(found.is_finite(), !touched, "{index}");
                }
            }
        }
    }
}

/// A weight in a quantised form, of any bytes that are no scale beyond what sums can hold.
fn quantized(quantization: Quantization, (outputs, inputs): (usize, usize)) -> Vec<u8> {
    let count = outputs * quantization.row_bytes(inputs).unwrap();
    let bytes = random(count, 7).into_iter().map(|value| {
        let bits = value.to_bits().wrapping_mul(2_654_435_761);
        bits.to_le_bytes()[3] & 0xbb
    });
    bytes.collect()
}

/// Results without those of weights that are about as small as subnormal numbers: an instruction may take a number
/// that rounds to the smallest normal one as zero.
fn normal(results: &[f32]) -> Vec<f32> {
    let of = |&value: &f32| if value.abs() < 1e-30 { 0.0 } else { value };
    results.iter().map(of).collect()
}

#[track_caller]
fn check_quantized(quantization: Quantization, (rows, inputs, outputs): (usize, usize, usize), bias: bool) {
    let bytes = &quantized(quantization, (outputs, inputs));
    let row_bytes = quantization.row_bytes(inputs).unwrap();
    let mut wide = vec![0.0; outputs * inputs];
    for (row, bytes) in bytes.chunks(row_bytes).enumerate() {
        quantization.decode(bytes, 0, &mut wide[row * inputs..][..inputs]);
    }
    assert!(wide.iter().all(|value| value.is_finite()));
    let narrow: Vec<bf16> = wide.iter().map(|&value| bf16::from_f32(value)).collect();
    let (x, biases) = (random(rows * inputs, 1), random(outputs, 3));
    for set in InstructionSet::all() {
        let of = |weight: Weight<'_>, x: &[f32]| {
            let projection = Projection {
                weight,
                bias: bias.then_some(&biases),
                inputs,
                outputs,
            };
            project(set, x, x.len() / inputs, projection, Epilogue::Identity)
        };
        let values = match set.has_bf16_dot() {
            true => Values::Bf16(&narrow),
            false => Values::F32(&wide),
        };
        let weight = Weight::Quantized(QuantizedRows {
            bytes,
            row_bytes,
            inputs,
            quantization,
        });
        let found = of(weight, &x);
        equal(&normal(&found), &normal(&of(values.into(), &x)));
        if rows > 1 {
            equal(&of(weight, &x[inputs..2 * inputs]), &found[outputs..2 * outputs]);
        }
    }
}

#[test]
fn few_rows_have_the_bits_of_many() {
    for quantization in [Quantization::Q8_0, Quantization::Q4K] {
        for rows in [1, 2, 3, 4, 5, 8, 9, 15, 16, 17] {
            for (inputs, outputs) in [(1280, 96), (256, 160)] {
                check_quantized(quantization, (rows, inputs, outputs), rows % 2 == 0);
            }
        }
    }
}

#[test]
fn products_with_quantised_weights_have_the_bits_of_those_with_the_decoded_ones() {
    for quantization in Quantization::ALL {
        for (rows, inputs, outputs) in [(1, 256, 1), (3, 1280, 33), (7, 512, 75), (23, 2304, 17)] {
            check_quantized(quantization, (rows, inputs, outputs), false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_with_quantised_weights_of_any_shape(
        form in 0..Quantization::ALL.len(),
        (rows, blocks, outputs) in (1_usize..30, 1_usize..1300, 1_usize..150),
        bias: bool,
    ) {
        let quantization = Quantization::ALL[form];
        let block = quantization.block_values();
        let inputs = (blocks / block).max(1) * block;
        check_quantized(quantization, (rows, inputs, outputs), bias);
    }
}
