//! Every set of vectors against the sum that defines a pixel.

use half::{bf16, f16};
use proptest::prelude::*;

use super::upsampled::{Weight, upsampled_conv2d_with};
use super::*;

/// Numbers between -1 and 1 that look random.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some((state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0)
    };
    std::iter::from_fn(next).take(count).collect()
}

/// The nearest multiples of an eighth.
fn eighths(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| (value * 8.0).round() / 8.0).collect()
}

/// The parameters of a convolution.
struct Case {
    sizes: Sizes,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    onto: Vec<f32>,
}

impl Case {
    fn new(batch: usize, sizes: Sizes) -> Self {
        Self {
            sizes,
            x: random(batch * sizes.in_channels * sizes.pixels(), 1),
            weight: random(sizes.out_channels * sizes.in_channels * sizes.taps(), 2),
            bias: random(
                if batch > 1 {
                    batch * sizes.out_channels
                } else {
                    sizes.out_channels
                },
                3,
            ),
            onto: random(batch * sizes.out_channels * sizes.out_pixels(), 4),
        }
    }

    /// The sums that define the pixels.
    fn defined(&self) -> Vec<f64> {
        let sizes = self.sizes;
        let pixel = |index: usize| {
            let (channel, pixel) = (index / sizes.out_pixels(), index % sizes.out_pixels());
            let (image, output) = (channel / sizes.out_channels, channel % sizes.out_channels);
            let bias = self.bias[(image * sizes.out_channels + output) % self.bias.len()];
            let mut sum = f64::from(bias) + f64::from(self.onto[index]);
            for input in 0..sizes.in_channels {
                for tap in 0..sizes.taps() {
                    let row = pixel / sizes.out_width * sizes.stride + tap / sizes.kernel_width;
                    let column = pixel % sizes.out_width * sizes.stride + tap % sizes.kernel_width;
                    let (Some(row), Some(column)) = (
                        row.checked_sub(sizes.rows_above),
                        column.checked_sub(sizes.columns_left),
                    ) else {
                        continue;
                    };
                    if row < sizes.height && column < sizes.width {
                        let x = (image * sizes.in_channels + input) * sizes.pixels();
                        let x = self.x[x + row * sizes.width + column];
                        let weight = (output * sizes.in_channels + input) * sizes.taps() + tap;
                        sum += f64::from(x) * f64::from(self.weight[weight]);
                    }
                }
            }
            sum
        };
        (0..self.onto.len()).map(pixel).collect()
    }

    fn addends(&self) -> Addends<'_> {
        Addends {
            bias: Some(&self.bias),
            onto: Some(&self.onto),
        }
    }

    fn run(&self, set: InstructionSet, weight: Values<'_>) -> Vec<f32> {
        conv2d_with(set, &self.x, weight, self.addends(), self.sizes)
    }

    /// The difference of the result of `set` from the definition, over the latter's size.
    fn error(&self, set: InstructionSet, weight: Values<'_>, defined: &[f64]) -> f64 {
        relative_error(&self.run(set, weight), defined)
    }
}

/// The difference between two lists of numbers over the size of the second one.
fn relative_error(found: &[f32], defined: &[f64]) -> f64 {
    assert_eq!(found.len(), defined.len());
    let size = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = size(&mut found.iter().zip(defined).map(|(&a, b)| f64::from(a) - b));
    difference / size(&mut defined.iter().copied())
}

fn sizes(channels: [usize; 2], [height, width]: [usize; 2], kernel: [usize; 2], stride: usize) -> Sizes {
    let (rows_above, columns_left) = (kernel[0] / 2, kernel[1] / 2);
    Sizes {
        in_channels: channels[0],
        height,
        width,
        out_channels: channels[1],
        out_height: (height + 2 * rows_above - kernel[0]) / stride + 1,
        out_width: (width + 2 * columns_left - kernel[1]) / stride + 1,
        kernel_height: kernel[0],
        kernel_width: kernel[1],
        stride,
        rows_above,
        columns_left,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_set_of_vectors_gives_what_is_defined(
        (batch, inputs, outputs) in (1_usize..4, 1_usize..70, 1_usize..24),
        (height, width) in (1_usize..20, 1_usize..90),
        kernel in prop::sample::select(vec![[3, 3], [1, 1], [3, 1], [2, 5], [5, 4]]),
        stride in 1_usize..4,
    ) {
        let case = Case::new(batch, sizes([inputs, outputs], [height.max(3), width.max(3)], kernel, stride));
        let defined = case.defined();
        for set in InstructionSet::all() {
            let error = case.error(set, Values::F32(&case.weight), &defined);
            prop_assert!(error < 1e-6, "{set:?}: {error}");
        }
    }
}

#[test]
fn weights_of_16_bits_are_widened_or_multiplied_in_pairs() {
    for (inputs, kernel, [height, width], stride) in [
        (1, 3, [7, 9], 1),
        (37, 3, [7, 9], 1),
        (150, 1, [7, 9], 1),
        (70, 3, [7, 9], 1),
        (70, 3, [3, 5], 1),
        (201, 3, [11, 70], 1),
        (131, 3, [9, 40], 2),
        (12, 3, [4, 4], 1),
    ] {
        // Numbers that bf16 holds, as it does the sums of a few of them: pairs of them lose nothing.
        let mut case = Case::new(2, sizes([inputs, 13], [height, width], [kernel; 2], stride));
        (case.x, case.weight) = (eighths(&case.x), eighths(&case.weight));
        let brains: Vec<bf16> = case.weight.iter().map(|&value| bf16::from_f32(value)).collect();
        case.weight = brains.iter().map(|value| value.to_f32()).collect();
        let defined = case.defined();
        for set in InstructionSet::all() {
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let wide = bits(case.run(set, Values::F32(&case.weight)));
            let halves: Vec<f16> = case.weight.iter().map(|&value| f16::from_f32(value)).collect();
            let widened: Vec<f32> = halves.iter().map(|value| value.to_f32()).collect();
            let wide_halves = bits(case.run(set, Values::F32(&widened)));
            assert!(
                bits(case.run(set, Values::F16(&halves))) == wide_halves,
                "{set:?}"
            );
            if set.has_bf16_dot() {
                let error = case.error(set, Values::Bf16(&brains), &defined);
                assert!(error < 1e-5, "{set:?}: {error}");
            } else {
                assert!(bits(case.run(set, Values::Bf16(&brains))) == wide, "{set:?}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_spreads_to_its_windows_and_their_groups_at_most() {
    for inputs in [3, 9] {
        let mut case = Case::new(1, sizes([inputs, 8], [9, 50], [3, 3], 1));
        case.x[4 * 50 + 20] = f32::INFINITY;
        case.x[4 * 50 + 40] = f32::NAN;
        let defined = case.defined();
        let reach = if Algorithm::new(&case.sizes, false, false) == Algorithm::WinogradF43 {
            F43::GROUP
        } else {
            1
        };
        for set in InstructionSet::all() {
            let found = case.run(set, Values::F32(&case.weight));
            let rows = found.chunks(50).zip(defined.chunks(50));
            for (found, defined) in rows.flat_map(|(a, b)| a.chunks(reach).zip(b.chunks(reach))) {
                for (found, expected) in found.iter().zip(defined) {
                    if !expected.is_finite() {
                        assert!(!found.is_finite(), "{set:?}: {found} instead of {expected}");
                    } else if defined.iter().all(|value| value.is_finite()) {
                        let difference = f64::from(*found) - expected;
                        assert!(difference.abs() < 1e-4, "{set:?}: {found} instead of {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_task_takes_no_more_than_was_said() {
    for [inputs, outputs, height, width, kernel, stride, batch] in [
        [320, 320, 64, 64, 3, 1, 2],
        [1280, 1280, 8, 8, 3, 1, 2],
        [4, 320, 5, 4000, 3, 1, 1],
        [640, 640, 32, 32, 3, 2, 2],
        [640, 640, 32, 32, 1, 1, 2],
        [512, 512, 1, 1, 3, 1, 900],
        [512, 500, 3, 2, 3, 1, 900],
        [128, 3, 512, 509, 3, 1, 1],
        [64, 64, 100, 40, 5, 2, 1],
        // Vectors that few groups of an image, or of many short rows, fill.
        [64, 64, 4, 4, 3, 1, 900],
        [64, 64, 900, 3, 3, 1, 1],
        [64, 64, 900, 2, 3, 1, 1],
        [64, 64, 3, 300, 3, 1, 1],
    ] {
        let sizes = sizes([inputs, outputs], [height, width], [kernel; 2], stride).as_one_row();
        for (in_pairs, in_tiles) in [(false, false), (true, false), (true, true)] {
            let algorithm = Algorithm::new(&sizes, in_pairs, in_tiles);
            let partition = Partition::new(batch, &sizes, &algorithm.limits());
            let convolution = Convolution {
                x: &[],
                weight: Values::F16(&[]),
                addends: Addends::default(),
                sizes,
                in_pairs,
                in_tiles,
                result: Output(std::ptr::null_mut()),
            };
            let mut pixels = 0;
            for index in 0..partition.tasks(batch, &sizes) {
                let block = partition.block(index, batch, &sizes);
                for lanes in [4, 8, 16] {
                    let layout = direct::Layout::new(&sizes, &block, lanes);
                    let taken = match algorithm {
                        Algorithm::Direct | Algorithm::Tiles => {
                            direct::Buffers::new(&convolution, &block, &layout, lanes).total()
                        }
                        Algorithm::WinogradF23 => winograd_takes::<F23>(&convolution, &block, lanes),
                        Algorithm::WinogradF43 => winograd_takes::<F43>(&convolution, &block, lanes),
                    };
                    let said = match in_tiles {
                        true => direct::most_in_tiles(inputs, outputs, sizes.taps()),
                        false => task(inputs, outputs, sizes.taps()),
                    };
                    assert!(
                        taken <= said,
                        "{taken} of {said}, {sizes:?}, {block:?}, {algorithm:?}"
                    );
                    if lanes == 4 {
                        let pixel_vectors = layout.pixel_vectors.iter().map(|vector| vector.count);
                        pixels += block.channels.len() * pixel_vectors.sum::<usize>();
                    }
                }
            }
            assert_eq!(pixels, batch * outputs * sizes.out_pixels());
        }
    }
}

/// Floats that a task takes.
fn winograd_takes<F: Form>(convolution: &Convolution<'_>, block: &Block, lanes: usize) -> usize {
    let layout = winograd::Layout::new::<F>(&convolution.sizes, block, lanes);
    winograd::Buffers::new::<F>(convolution, block, &layout, lanes).total()
}

#[test]
fn every_set_of_vectors_gives_what_is_defined_after_upsampling() {
    for ([inputs, outputs], [height, width], batch) in [
        ([70, 9], [5, 20], 2),
        ([3, 17], [1, 1], 3),
        ([130, 3], [7, 97], 1),
        ([5, 70], [9, 16], 1),
    ] {
        // Between rows of zeros, which a convolution with a padding of 1 sees there.
        // Numbers that bf16 holds, as it does their differences and the sums of nine of them.
        let small = eighths(&random(batch * inputs * height * width, 1));
        let (mut x, mut large) = (Vec::new(), Vec::new());
        for channel in small.chunks(height * width) {
            x.extend(vec![0.0; width]);
            x.extend(channel);
            x.extend(vec![0.0; width]);
            for pixel in 0..4 * height * width {
                let (row, column) = (pixel / (2 * width), pixel % (2 * width));
                large.push(channel[row / 2 * width + column / 2]);
            }
        }
        let mut case = Case {
            x: large,
            ..Case::new(
                batch,
                sizes([inputs, outputs], [2 * height, 2 * width], [3, 3], 1),
            )
        };
        case.weight = eighths(&case.weight);
        let defined = case.defined();
        let brains: Vec<bf16> = case.weight.iter().map(|&value| bf16::from_f32(value)).collect();
        for set in InstructionSet::all() {
            let error = |values: Values<'_>| {
                let weight = Weight {
                    values,
                    out_channels: outputs,
                    in_channels: inputs,
                };
                let mut summed = None;
                let mut found = |few_blocks: usize| {
                    let (addends, size) = (case.addends(), [height, width]);
                    upsampled_conv2d_with(set, few_blocks, &x, weight, &mut summed, addends, size)
                };
                let [by_tasks, first, second] = [usize::MAX, 0, 0].map(&mut found);
                assert!(summed.is_some() && by_tasks == first && first == second);
                relative_error(&first, &defined)
            };
            let of_floats = error(Values::F32(&case.weight));
            assert!(of_floats < 1e-6, "{set:?}: {of_floats}");
            let of_brains = error(Values::Bf16(&brains));
            assert!(of_brains < 1e-6, "{set:?}: {of_brains}");
        }
    }
}
