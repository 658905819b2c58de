//! Norms by every instruction set that the CPU has, against plain arithmetic in 64 bits.

use proptest::prelude::*;

use super::super::kernel::tests::random;
use super::super::moments::{Moments, add_channels};
use super::*;

/// Random numbers of which so many have this mean, and differ from it by at most `spread`.
fn values(count: usize, mean: f32, spread: f32, seed: u64) -> Vec<f32> {
    let values = random(&[count], seed).to_vec1::<f32>().unwrap();
    values.iter().map(|value| mean + spread * value).collect()
}

/// The mean and the reciprocal of the deviation.
fn plain_moments(values: &[f32], epsilon: f64) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2));
    (mean, 1.0 / (squares.sum::<f64>() / count + epsilon).sqrt())
}

/// Asserts that every value is as close to its own as its size, and `noise`, allow.
#[track_caller]
fn close(found: &[f32], expected: impl IntoIterator<Item = f64>, noise: f64) {
    let mut expected = expected.into_iter();
    for (index, &found) in found.iter().enumerate() {
        let expected = expected.next().expect("as many values");
        assert!(
            (f64::from(found) - expected).abs() <= noise * (1.0 + expected.abs()),
            "{index}: {found} instead of {expected}"
        );
    }
    assert!(expected.next().is_none(), "as many values");
}

#[track_caller]
fn equal(found: &[f32], expected: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(found) == bits(expected), "not equal to the bit");
}

/// What rounding means of this size to 32 bits, and then all else, leaves of values that are multiplied so.
fn noise(moments: &[(f64, f64)]) -> f64 {
    let largest = moments.iter().fold(0.0, |largest: f64, (mean, deviation)| {
        largest.max(mean.abs() * deviation)
    });
    2e-6 + 3e-7 * largest
}

fn means() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0_f32), -3.0_f32..3.0, Just(300.0), Just(-2e4)]
}

fn spreads() -> impl Strategy<Value = f32> {
    prop_oneof![Just(1.0_f32), 0.01_f32..50.0]
}

/// Widths around those of vectors, and beyond that of a block.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..140, 1000_usize..1100, Just(2432), Just(320)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_normed_as_plain_arithmetic_does(
        (rows, width, tokens) in (0_usize..20, widths(), 1_usize..5),
        (mean, spread) in (means(), spreads()),
    ) {
        let epsilon = 1e-6;
        let x = values(rows * width, mean, spread, 1);
        let batch = rows.div_ceil(tokens);
        let (weight, bias) = (values(width, 1.0, 1.0, 2), values(width, 0.0, 1.0, 3));
        let (scale, shift) = (values(batch * width, 0.0, 1.0, 4), values(batch * width, 0.0, 1.0, 5));
        let residual = values(rows * width, 0.0, 1.0, 6);
        let by_row = |of: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..rows * width).map(|index| of(index / width, index % width)).collect()
        };
        let wide = |values: &[f32], row: usize, column: usize| f64::from(values[row * width + column]);
        let moments: Vec<_> = x.chunks(width).map(|row| plain_moments(row, epsilon)).collect();
        let noise = noise(&moments);
        let normed = |row: usize, column: usize| {
            let (mean, deviation) = moments[row];
            (wide(&x, row, column) - mean) * deviation
        };
        let roots: Vec<f64> = x
            .chunks(width)
            .map(|row| {
                let squares = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
                (squares / width as f64 + epsilon).sqrt()
            })
            .collect();
        for set in InstructionSet::all() {
            let norm = LayerNorm { weight: &weight, bias: &bias, epsilon };
            let expected = by_row(&|row, column| {
                normed(row, column) * wide(&weight, 0, column) + wide(&bias, 0, column)
            });
            close(&norm.of(set, &x, width), expected, noise);

            let norm = ModulatedLayerNorm { shift: &shift, scale: &scale, tokens, epsilon };
            let expected = by_row(&|row, column| {
                normed(row, column) * (1.0 + wide(&scale, row / tokens, column))
                    + wide(&shift, row / tokens, column)
            });
            close(&norm.of(set, &x, width), expected, noise);

            let norm = RmsNorm { weight: &weight, epsilon };
            let expected =
                by_row(&|row, column| wide(&x, row, column) / roots[row] * wide(&weight, 0, column));
            close(&norm.of(set, &x, width), expected, 2e-6);

            let gated = GatedResidual { residual: &residual, gate: &scale, tokens };
            let expected = by_row(&|row, column| {
                wide(&residual, row, column) + wide(&scale, row / tokens, column) * wide(&x, row, column)
            });
            close(&gated.of(set, &x, width), expected, 1e-5 + 1e-7 * f64::from(mean.abs() + spread));
        }
    }

    #[test]
    fn groups_are_normed_as_plain_arithmetic_does(
        (batch, groups, channels_a_group) in (1_usize..3, 1_usize..5, 1_usize..4),
        (height, width) in (1_usize..20, prop_oneof![1_usize..80, 1000_usize..1100]),
        (mean, spread) in (means(), spreads()),
        then_silu: bool,
    ) {
        let (epsilon, channels, pixels) = (1e-6, groups * channels_a_group, height * width);
        let x = values(batch * channels * pixels, mean, spread, 1);
        let (weight, bias) = (values(channels, 1.0, 1.0, 2), values(channels, 0.0, 1.0, 3));
        let settings = GroupNormSettings { groups, weight: &weight, bias: &bias, epsilon, then_silu };
        let groups: Vec<_> =
            x.chunks(channels_a_group * pixels).map(|group| plain_moments(group, epsilon)).collect();
        let expected: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(index, &value)| {
                let channel = index / pixels;
                let (mean, deviation) = groups[channel / channels_a_group];
                let (weight, bias) = (weight[channel % channels], bias[channel % channels]);
                let normed = (f64::from(value) - mean) * deviation * f64::from(weight) + f64::from(bias);
                if then_silu { normed / (1.0 + (-normed).exp()) } else { normed }
            })
            .collect();
        for set in InstructionSet::all() {
            let found = group_norm(set, &x, (height, width), settings);
            close(&found, expected.iter().copied(), noise(&groups));
            // Groups that do not fit into the cache take these steps, and so do bands, with the same bits.
            let found = by_channels(set, &x, (height, width), settings);
            close(&found, expected.iter().copied(), noise(&groups));
            let mut moments = vec![Moments::NONE; batch * channels];
            for row in 0..height {
                let rows: Vec<f32> = (0..batch * channels)
                    .flat_map(|channel| &x[channel * pixels + row * width..][..width])
                    .copied()
                    .collect();
                add_channels(set, &mut moments, &rows, width, width);
            }
            let norms = settings.of_channels(&moments);
            let mut over = vec![f32::NAN; x.len()];
            for ((norm, from), to) in norms.iter().zip(x.chunks(pixels)).zip(over.chunks_mut(pixels)) {
                norm.apply(set, from, to);
            }
            equal(&over, &found);
        }
    }
}

#[test]
fn a_first_row_that_is_far_from_the_others_costs_nothing() {
    let (height, width) = (40, 64);
    let mut x = values(height * width, 1000.0, 0.1, 1);
    x[..width].fill(0.0);
    let settings = GroupNormSettings {
        groups: 1,
        weight: &[1.0],
        bias: &[0.0],
        epsilon: 1e-6,
        then_silu: false,
    };
    let (mean, deviation) = plain_moments(&x, 1e-6);
    for set in InstructionSet::all() {
        let expected = x.iter().map(|&value| (f64::from(value) - mean) * deviation);
        close(&group_norm(set, &x, (height, width), settings), expected, 2e-6);
    }
}

#[test]
fn values_that_are_all_the_same_become_the_bias() {
    for (value, width) in [(0.0, 7), (1.1, 320), (-3e3, 1500), (1e-20, 64), (1e6, 77)] {
        let x = vec![value; 3 * width];
        let (weight, bias) = (values(width, 1.0, 1.0, 2), values(width, 0.0, 1.0, 3));
        for set in InstructionSet::all() {
            let norm = LayerNorm {
                weight: &weight,
                bias: &bias,
                epsilon: 1e-6,
            };
            for row in norm.of(set, &x, width).chunks(width) {
                equal(row, &bias);
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_and_its_group() {
    let (rows, width) = (5, 70);
    let x = values(rows * width, 0.0, 1.0, 1);
    let (weight, bias) = (values(width, 1.0, 1.0, 2), values(width, 0.0, 1.0, 3));
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 63, 69] {
            let mut touched = x.clone();
            touched[2 * width + place] = special;
            for set in InstructionSet::all() {
                let norm = LayerNorm {
                    weight: &weight,
                    bias: &bias,
                    epsilon: 1e-6,
                };
                let settings = GroupNormSettings {
                    groups: rows,
                    weight: &weight[..rows],
                    bias: &bias[..rows],
                    epsilon: 1e-6,
                    then_silu: false,
                };
                let normed = |x: &[f32]| [norm.of(set, x, width), group_norm(set, x, (1, width), settings)];
                for (found, without) in normed(&touched).into_iter().zip(normed(&x)) {
                    for (row, (found, without)) in found.chunks(width).zip(without.chunks(width)).enumerate()
                    {
                        if row == 2 {
                            assert!(found.iter().all(|value| value.is_nan()));
                        } else {
                            equal(found, without);
                        }
                    }
                }
            }
        }
    }
}
