//! Convolutions of pictures that are made twice as large first, on the processor.
//!
//! The pixels of the larger picture are copies: of the 9 under a kernel of 3 by 3 at most 4 differ. The weights
//! of those that are equal are summed beforehand, which leaves 4 products of 9, and the larger picture is never
//! made. A pixel of the smaller picture becomes four; at which of their two rows and two columns the kernel
//! stands decides which of its rows and columns fall together.

use rayon::prelude::*;

use super::convolution::{Sizes, lay_out_row};
use super::kernel::Values;
use super::product::{Matrix, Target, multiply_in_parts, with_floats};
use super::scratch::with_scratch;

/// Pixels of the smaller picture that a task takes: four steps of those that products are made in.
const PIXELS: usize = 192;
/// Weights of a kernel.
const KERNEL: usize = 9;

/// The rows (or columns) of the kernel that fall on the first and on the second of two different rows, for
/// either of the two rows that a pixel becomes.
const FALL_TOGETHER: [[&[usize]; 2]; 2] = [[&[0], &[1, 2]], [&[0, 1], &[2]]];

/// The weights of a convolution by 3 by 3, summed where they fall on equal pixels: for either row and either column
/// that a pixel becomes a matrix, `[out channels, 2 columns * in channels * 2 rows]`.
#[derive(Debug)]
pub(crate) struct SummedWeights {
    values: Vec<f32>,
    out_channels: usize,
    in_channels: usize,
}

impl SummedWeights {
    pub(crate) fn new(weight: Values<'_>, out_channels: usize, in_channels: usize) -> Self {
        let window = 4 * in_channels;
        let mut values = vec![0.0; 4 * out_channels * window];
        values
            .par_chunks_mut(window)
            .enumerate()
            .for_each(|(index, sums)| {
                let (place, output) = (index / out_channels, index % out_channels);
                let (by_row, by_column) = (FALL_TOGETHER[place / 2], FALL_TOGETHER[place % 2]);
                let range = output * in_channels * KERNEL..(output + 1) * in_channels * KERNEL;
                with_floats(weight, range, |weight| {
                    for (index, sum) in sums.iter_mut().enumerate() {
                        let (column, input, row) =
                            (index / 2 / in_channels, index / 2 % in_channels, index % 2);
                        let kernel = &weight[input * KERNEL..(input + 1) * KERNEL];
                        let rows = by_row[row].iter();
                        *sum = rows
                            .flat_map(|row| {
                                by_column[column]
                                    .iter()
                                    .map(move |column| kernel[3 * row + column])
                            })
                            .sum();
                    }
                });
            });
        Self {
            values,
            out_channels,
            in_channels,
        }
    }

    fn at(&self, row: usize, column: usize) -> Matrix<'_> {
        let (rows, columns) = (self.out_channels, 4 * self.in_channels);
        let first = (2 * row + column) * rows * columns;
        Matrix::row_major(&self.values[first..first + rows * columns], rows, columns)
    }
}

/// Floats that a task takes.
pub(crate) fn task(in_channels: usize, out_channels: usize) -> usize {
    (6 * in_channels + 2 * out_channels) * PIXELS
}

/// Floats of the weights once they are summed.
pub(crate) fn weights(in_channels: usize, out_channels: usize) -> usize {
    16 * in_channels * out_channels
}

/// The convolution of the pictures in `x`, each made twice as large. `x` has a row above and a row below that are
/// neighbours only; `height` and `width` rows and columns without them become twice as many.
pub(crate) fn upsampled_conv2d(
    x: &[f32],
    weights: &SummedWeights,
    bias: Option<&[f32]>,
    height: usize,
    width: usize,
) -> Vec<f32> {
    let SummedWeights {
        in_channels,
        out_channels,
        ..
    } = *weights;
    let pixels = height * width;
    let picture = in_channels * (height + 2) * width;
    let batch = x.len() / picture.max(1);
    let mut result = vec![0.0; batch * out_channels * 4 * pixels];
    let target = Target::new(&mut result, 4 * pixels);
    let sizes = Sizes {
        in_channels,
        height: height + 2,
        width,
        out_channels,
        out_height: height,
        out_width: width,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        rows_above: 0,
        columns_left: 1,
    };
    let tiles = pixels.div_ceil(PIXELS);
    (0..batch * tiles * 2).into_par_iter().for_each(|task| {
        let (index, tile, row) = (task / 2 / tiles, task / 2 % tiles, task % 2);
        let first = tile * PIXELS;
        let count = PIXELS.min(pixels - first);
        let x = &x[index * picture..(index + 1) * picture];
        // Not fewer than 2 values a row: see `multiply_in_parts`.
        let step = count.max(2);
        with_scratch((6 * in_channels + 2 * out_channels) * step, |scratch| {
            let (windows, products) = scratch.split_at_mut(6 * in_channels * step);
            lay_out(x, first, count, row, &sizes, windows);
            for (column, products) in products.chunks_exact_mut(out_channels * step).enumerate() {
                let right = Matrix {
                    values: &windows[2 * column * in_channels * step..],
                    rows: 4 * in_channels,
                    columns: count,
                    row_step: step,
                    column_step: 1,
                };
                let product = Target::new(products, step);
                // SAFETY: the products belong to this task alone.
                unsafe {
                    if let Some(bias) = bias {
                        product.fill(out_channels, count, |channel, row| row.fill(bias[channel]));
                    }
                    multiply_in_parts(product, weights.at(row, column), right, bias.is_some());
                }
            }
            let (left, right) = products.split_at(out_channels * step);
            for (channel, (left, right)) in left.chunks_exact(step).zip(right.chunks_exact(step)).enumerate()
            {
                let mut from = 0;
                while from < count {
                    let (y, x) = ((first + from) / width, (first + from) % width);
                    let to = count.min(from + width - x);
                    let place = (index * out_channels + channel) * 4 * pixels;
                    let target = target.at(place + (2 * y + row) * 2 * width + 2 * x);
                    // SAFETY: `result` lives until the end, and these pixels of it are no other task's.
                    unsafe {
                        target.fill(1, 2 * (to - from), |_, pairs| {
                            let values = left[from..to].iter().zip(&right[from..to]);
                            for (pair, (&left, &right)) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(values)
                            {
                                *pair = [left, right];
                            }
                        });
                    }
                    from = to;
                }
            }
        });
    });
    result
}

/// Writes what the kernel may see of the smaller picture when it stands at the upper (0) or lower (1) `row` of what
/// a pixel becomes, for `count` pixels from `first` on: for each of three columns and each channel two rows.
fn lay_out(x: &[f32], first: usize, count: usize, row: usize, sizes: &Sizes, windows: &mut [f32]) {
    let channel_size = sizes.height * sizes.width;
    for (index, values) in windows.chunks_exact_mut(count.max(2)).enumerate() {
        let (column, channel, offset) = (
            index / 2 / sizes.in_channels,
            index / 2 % sizes.in_channels,
            index % 2,
        );
        let channel = &x[channel * channel_size..(channel + 1) * channel_size];
        lay_out_row(channel, first, row + offset, column, sizes, &mut values[..count]);
    }
}
