//! Group norms: statistics of whole images and of bands, and what is normed by them.

use candle_core::{DType, Tensor};
use sd_ops::{GroupNorm, group_norm, group_norm_silu};

use super::comparison::{WITHIN, assert_close, held, in_every_type, random, values};
use super::compiler::{self, Source};
use super::launch::Launch;

/// The threads that sum a group or a channel.
const SUMMING: [usize; 3] = [1024, 1, 1];
/// The threads that norm pixels of a channel.
const PIXELS: [usize; 3] = [256, 1, 1];
/// The threads that merge channels, each those of a group.
const MERGING: [usize; 3] = [64, 1, 1];
const EPSILON: f64 = 1e-6;
const BATCH: usize = 2;

#[derive(Clone, Copy)]
struct Images {
    channels: usize,
    groups: usize,
    height: usize,
    width: usize,
    mean: f64,
    spread: f64,
    /// What normed values may be wrong by: the mean is rounded to 32 bits, and a mean of 500 by 1.5e-5.
    within: f32,
}

const IMAGES: [Images; 4] = [
    Images {
        channels: 4,
        groups: 2,
        height: 1,
        width: 1,
        mean: 2.0,
        spread: 1.0,
        within: WITHIN,
    },
    Images {
        channels: 6,
        groups: 2,
        height: 5,
        width: 7,
        mean: -1.0,
        spread: 3.0,
        within: WITHIN,
    },
    Images {
        channels: 4,
        groups: 2,
        height: 33,
        width: 40,
        mean: 500.0,
        spread: 8.0,
        within: 3e-5,
    },
    // More than 256 values for each of the threads.
    Images {
        channels: 1,
        groups: 1,
        height: 513,
        width: 520,
        mean: 0.5,
        spread: 1.0,
        within: WITHIN,
    },
];

impl Images {
    fn x(&self, held_type: DType) -> Tensor {
        let random = random(&[BATCH, self.channels, self.height, self.width], 1);
        held(&((random * self.spread).unwrap() + self.mean).unwrap(), held_type)
    }

    /// The kernels' `Groups`.
    fn words(&self, epsilon: f64) -> [u32; 4] {
        let (of_group, pixels) = (self.channels / self.groups, self.height * self.width);
        let epsilon = (epsilon as f32).to_bits();
        [self.channels as u32, of_group as u32, pixels as u32, epsilon]
    }

    /// `[batch, groups, 2]`: the mean and the reciprocal of the standard deviation.
    fn statistics(&self, x: &Tensor, held_type: DType) -> Vec<f32> {
        let launch = Launch::of(Source::Norm, "group_statistics", held_type)
            .input(0, x)
            .wide_output(1, BATCH * self.groups * 2)
            .parameters(2, &self.words(EPSILON));
        launch.run([BATCH * self.groups, 1, 1], SUMMING)
    }

    /// The moments of each channel, `[batch, channels, 2]`, of these rows and of `earlier` ones.
    fn moments(&self, rows: &Tensor, earlier: Option<(&[f32], usize)>, held_type: DType) -> Vec<f32> {
        let rows = rows.contiguous().unwrap();
        let pixels = rows.dim(2).unwrap() * self.width;
        let count = earlier.map_or(0, |(_, count)| count) as f32;
        let mut launch = Launch::of(Source::Norm, "channel_moments", held_type)
            .constants(&[false, false, false, false, false, earlier.is_some()], &[])
            .input(0, &rows)
            .wide_output(1, BATCH * self.channels * 2)
            .parameters(3, &[pixels as u32, count.to_bits()]);
        if let Some((moments, _)) = earlier {
            let moments = Tensor::new(moments, rows.device()).unwrap();
            launch = launch.wide_input(2, &moments);
        }
        launch.run([BATCH * self.channels, 1, 1], SUMMING)
    }

    /// As [`Images::statistics`], from the moments of channels.
    fn merged(&self, moments: &[f32]) -> Vec<f32> {
        let groups = BATCH * self.groups;
        let count = (self.height * self.width) as f32;
        let words = [
            groups as u32,
            (self.channels / self.groups) as u32,
            count.to_bits(),
            (EPSILON as f32).to_bits(),
        ];
        let launch = Launch::of(Source::Norm, "grouped_statistics", DType::F32)
            .input(0, &Tensor::new(moments, &candle_core::Device::Cpu).unwrap())
            .output(1, groups * 2)
            .parameters(2, &words);
        launch.run([groups.div_ceil(MERGING[0]), 1, 1], MERGING)
    }

    /// The mean and the reciprocal of the standard deviation of each group, in 64 bits.
    fn plain_statistics(&self, x: &Tensor) -> Vec<f32> {
        let size = self.channels / self.groups * self.height * self.width;
        let all = values(x);
        let statistics = all.chunks(size).flat_map(|group| {
            let mean_of = |of: &dyn Fn(f64) -> f64| {
                group.iter().map(|&value| of(value.into())).sum::<f64>() / size as f64
            };
            let mean = mean_of(&|value| value);
            let variance = mean_of(&|value| (value - mean).powi(2));
            [mean as f32, (1.0 / (variance + EPSILON).sqrt()) as f32]
        });
        statistics.collect()
    }
}

/// Checks means and reciprocals of deviations each by itself, as their sizes differ.
fn assert_statistics(what: &str, held_type: DType, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = 2e-6 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= allowed,
            "{what} in {held_type:?}: value {index} is {found}, not {expected}"
        );
    }
}

#[test]
fn statistics_of_images_and_of_bands() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, images) in in_every_type(&IMAGES) {
        let x = images.x(held_type);
        let expected = images.plain_statistics(&x);
        let found = images.statistics(&x, held_type);
        assert_statistics("statistics", held_type, &found, &expected);

        // A band of one row, one of most, and the rest.
        let mut moments: Vec<f32> = Vec::new();
        let ends = [0, 1, images.height * 3 / 4, images.height];
        for band in ends.windows(2).filter(|band| band[0] < band[1]) {
            let rows = x.narrow(2, band[0], band[1] - band[0]).unwrap();
            let earlier = (band[0] > 0).then_some((&moments[..], band[0] * images.width));
            moments = images.moments(&rows, earlier, held_type);
        }
        let merged = images.merged(&moments);
        assert_statistics("statistics of bands", held_type, &merged, &expected);
    }
}

#[test]
fn norms_with_and_without_silu() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, images) in in_every_type(&IMAGES[..3]) {
        let x = images.x(held_type);
        let [weight, bias] = [2, 3].map(|seed| held(&random(&[images.channels], seed), held_type));
        let norm = GroupNorm::new(images.groups, EPSILON, weight.clone(), bias.clone()).unwrap();
        let statistics = images.statistics(&x, held_type);
        let statistics = Tensor::new(statistics, x.device()).unwrap();
        for then_silu in [false, true] {
            let launch = Launch::of(Source::Norm, "group_normalize", held_type);
            let pixels = images.height * images.width;
            let found = launch
                .constants(&[false, false, false, then_silu], &[])
                .input(0, &x)
                .output(1, x.elem_count())
                .wide_input(2, &statistics)
                .input(3, &weight)
                .input(4, &bias)
                .parameters(5, &images.words(0.0))
                .run([pixels.div_ceil(PIXELS[0]), BATCH * images.channels, 1], PIXELS);
            let plain = if then_silu { group_norm_silu } else { group_norm };
            let expected = values(&plain(&x, &norm).unwrap());
            let what = format!("group norm of {:?}, silu: {then_silu}", x.dims());
            assert_close(&what, held_type, &found, &expected, images.within);
        }
    }
}
