//! Convolutions whose windows are gathered tile by tile.

use candle_core::{DType, Tensor};
use sd_ops::{Conv2d, conv2d, upsample_nearest};

use super::comparison::{TYPES, WITHIN, assert_close, held, random, values};
use super::compiler::{self, Source};
use super::launch::Launch;

/// The channels and the pixels of a result's tile.
const TILE: usize = 64;
const THREADS: [usize; 3] = [128, 1, 1];
const BATCH: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Case {
    in_channels: usize,
    out_channels: usize,
    /// Height and width, of the input before it is upsampled.
    input: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    /// Rows of zeros above the input; where it is negative, rows that no window reads.
    above: i32,
    left: usize,
    /// Height and width of the result: windows that reach beyond the input see zeros there.
    result: [usize; 2],
    upsamples: bool,
    has_bias: bool,
    has_shifts: bool,
    has_residual: bool,
}

/// 3x3 with a row of zeros around an input that has 117 pixels.
const THREE: Case = Case {
    in_channels: 20,
    out_channels: 70,
    input: [9, 13],
    kernel: [3, 3],
    stride: 1,
    above: 1,
    left: 1,
    result: [9, 13],
    upsamples: false,
    has_bias: true,
    has_shifts: false,
    has_residual: false,
};

impl Case {
    fn check(self) {
        for held_type in TYPES {
            let of = |shape: &[usize], seed: u64| held(&random(shape, seed), held_type);
            let x = of(&[BATCH, self.in_channels, self.input[0], self.input[1]], 1);
            let [kernel_height, kernel_width] = self.kernel;
            let of_weight = [self.out_channels, self.in_channels, kernel_height, kernel_width];
            let weight = of(&of_weight, 2);
            let bias = self.has_bias.then(|| of(&[self.out_channels], 3));
            let shifts = self.has_shifts.then(|| of(&[BATCH, self.out_channels], 4));
            let shape = [BATCH, self.out_channels, self.result[0], self.result[1]];
            let residual = self.has_residual.then(|| of(&shape, 5));
            let addends = [bias.as_ref(), shifts.as_ref(), residual.as_ref()];
            let found = self.found(&x, &weight, addends, held_type);
            let expected = self.expected(&x, &weight, addends);
            assert_eq!(expected.dims(), shape);
            let what = format!("{self:?}");
            assert_close(&what, held_type, &found, &values(&expected), WITHIN);
        }
    }

    fn found(self, x: &Tensor, weight: &Tensor, addends: [Option<&Tensor>; 3], held_type: DType) -> Vec<f32> {
        let [bias, shifts, residual] = addends;
        let pixels = self.result[0] * self.result[1];
        let word = |size: usize| size as u32;
        let [[height, width], [out_height, out_width]] =
            [self.input, self.result].map(|sides| sides.map(word));
        let sizes = [
            [word(self.in_channels), height, width],
            [word(self.out_channels), out_height, out_width],
            [word(self.stride), self.above.cast_unsigned(), word(self.left)],
        ];
        let depth = word(self.in_channels * self.kernel[0] * self.kernel[1]);
        let flags = [self.has_bias, self.has_shifts, self.has_residual, self.upsamples];
        let launch = Launch::of(Source::Convolution, "convolution", held_type)
            .constants(&flags, &self.kernel.map(|size| size as u16))
            .input(0, x)
            .input(1, weight)
            .output(2, BATCH * self.out_channels * pixels)
            .optional(3, bias)
            .optional(4, shifts)
            .optional(5, residual)
            .parameters(6, &[sizes.as_flattened(), &[depth]].concat());
        let groups = [pixels.div_ceil(TILE), self.out_channels.div_ceil(TILE), BATCH];
        launch.run(groups, THREADS)
    }

    /// The convolution of the input with all that surrounds it.
    fn expected(self, x: &Tensor, weight: &Tensor, [bias, shifts, residual]: [Option<&Tensor>; 3]) -> Tensor {
        let mut x = if self.upsamples {
            upsample_nearest(x).unwrap()
        } else {
            x.clone()
        };
        x = match usize::try_from(self.above) {
            Ok(above) => x.pad_with_zeros(2, above, 0).unwrap(),
            Err(_) => {
                let left_out = self.above.unsigned_abs() as usize;
                x.narrow(2, left_out, x.dim(2).unwrap() - left_out).unwrap()
            }
        };
        x = x.pad_with_zeros(3, self.left, 0).unwrap();
        for (dimension, (count, kernel)) in [2, 3].into_iter().zip(self.result.into_iter().zip(self.kernel)) {
            let wanted = (count - 1) * self.stride + kernel;
            let size = x.dim(dimension).unwrap();
            let padded = x
                .pad_with_zeros(dimension, 0, wanted.saturating_sub(size))
                .unwrap();
            x = padded.narrow(dimension, 0, wanted).unwrap();
        }
        let convolution = Conv2d::new(weight.clone(), bias.cloned(), self.stride, 0).unwrap();
        let mut result = conv2d(&x.contiguous().unwrap(), &convolution).unwrap();
        if let Some(shifts) = shifts {
            let shifts = shifts.reshape((BATCH, self.out_channels, 1, 1)).unwrap();
            result = result.broadcast_add(&shifts).unwrap();
        }
        residual
            .map_or(Ok(result.clone()), |residual| result + residual)
            .unwrap()
    }
}

#[test]
fn kernels_of_several_sizes() {
    if !compiler::is_there() {
        return;
    }
    THREE.check();
    let one = Case {
        in_channels: 33,
        out_channels: 7,
        kernel: [1, 1],
        above: 0,
        left: 0,
        ..THREE
    };
    one.check();
    Case {
        in_channels: 1,
        out_channels: 1,
        input: [1, 1],
        result: [1, 1],
        has_bias: false,
        ..one
    }
    .check();
    Case {
        kernel: [1, 3],
        above: 0,
        has_bias: false,
        ..THREE
    }
    .check();
}

#[test]
fn strides_and_padding() {
    if !compiler::is_there() {
        return;
    }
    // As UNets shrink images, and as VAEs do: without zeros above and to the left.
    let two = Case {
        in_channels: 6,
        out_channels: 65,
        input: [11, 20],
        stride: 2,
        result: [6, 10],
        ..THREE
    };
    two.check();
    Case {
        above: 0,
        left: 0,
        result: [5, 10],
        ..two
    }
    .check();
    Case {
        above: 2,
        left: 0,
        result: [10, 12],
        ..THREE
    }
    .check();
}

#[test]
fn bands_of_upsampled_images() {
    if !compiler::is_there() {
        return;
    }
    let upsampled = Case {
        in_channels: 5,
        upsamples: true,
        result: [18, 26],
        ..THREE
    };
    upsampled.check();
    // A band below others: the nearer half of the row above, and of that below.
    Case {
        above: -1,
        result: [14, 26],
        ..upsampled
    }
    .check();
    Case {
        above: -1,
        result: [7, 13],
        ..THREE
    }
    .check();
}

#[test]
fn shifts_and_residuals() {
    if !compiler::is_there() {
        return;
    }
    for (has_bias, has_shifts, has_residual) in
        [(false, true, false), (false, false, true), (true, true, true)]
    {
        Case {
            in_channels: 3,
            has_bias,
            has_shifts,
            has_residual,
            ..THREE
        }
        .check();
    }
}
