//! Convolutions by 3 by 3 of pictures that are made twice as large first, with a quarter of the products.
//!
//! The pixels of the larger picture are copies: of the 3 in a row under the kernel two are the same. With weights `a`, `b`,
//! `c` and pixels `p`, `q`, `r` of the smaller picture, `q` becomes two of the larger one, whose sums are
//! `a p + (b + c) q` and `(a + b) q + c r`. Both hold `(a + b + c) q`; to the first one `a (p - q)` is added, to
//! the second one `c (r - q)`. That is 3 products instead of 6, and in both directions 9 instead of 36. The larger picture is
//! never made, and a pixel still depends on what it sees and on nothing else.

// Many lists are gone through side by side.
#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use super::cut::{Block, Cut, Limits, Spot, in_parts};
use super::tile::{Part, SLACK};
use super::{Output, Sizes, Terms};
use crate::cpu::kernel::Values;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::{InstructionSet, Kernel, Simd};
use crate::cpu::widened::with_floats;

/// Products of a pixel of the smaller picture: of three rows and three columns.
const TERMS: usize = 9;
/// Input channels whose products are summed at a time.
const PART: usize = 64;

/// How large tasks are, in pixels of the smaller picture.
const LIMITS: Limits = Limits {
    pixels: 192,
    channels: 64,
    plane: TERMS * 192,
    plane_of: |_, pictures, rows, columns| TERMS * pictures * rows * columns,
};

/// Floats that a task takes, at most.
pub(crate) fn task(in_channels: usize, out_channels: usize) -> usize {
    let (pixels, outputs) = (LIMITS.pixels_of_vectors(), out_channels.min(LIMITS.channels));
    let planes = in_parts(in_channels, PART) * LIMITS.plane + SLACK;
    planes + 3 * (LIMITS.pixels + 2) + (outputs * TERMS + 4) * pixels
}

/// Floats of the weights once they are summed.
pub(crate) fn weights(in_channels: usize, out_channels: usize) -> usize {
    TERMS * in_channels * out_channels
}

/// The weights of a convolution by 3 by 3, summed for each product: `[out channels, rows * columns, in channels]`.
#[derive(Debug)]
pub(crate) struct SummedWeights {
    values: Vec<f32>,
    out_channels: usize,
    in_channels: usize,
}

impl SummedWeights {
    pub(crate) fn new(weight: Values<'_>, out_channels: usize, in_channels: usize) -> Self {
        let mut values = vec![0.0; weights(in_channels, out_channels)];
        values
            .par_chunks_mut(TERMS * in_channels)
            .enumerate()
            .for_each(|(output, sums)| {
                let range = output * in_channels * TERMS..(output + 1) * in_channels * TERMS;
                with_floats(weight, range, |weight| {
                    for (input, kernel) in weight.as_chunks::<TERMS>().0.iter().enumerate() {
                        let rows = summed(
                            [0, 1, 2].map(|row| [kernel[3 * row], kernel[3 * row + 1], kernel[3 * row + 2]]),
                        );
                        for (row, values) in rows.into_iter().enumerate() {
                            let [first, second, third] = summed(values.map(|value| [value])).map(|[sum]| sum);
                            sums[3 * row * in_channels + input] = first;
                            sums[(3 * row + 1) * in_channels + input] = second;
                            sums[(3 * row + 2) * in_channels + input] = third;
                        }
                    }
                });
            });
        Self {
            values,
            out_channels,
            in_channels,
        }
    }
}

/// The first, the sum of all, and the third.
fn summed<const N: usize>([a, b, c]: [[f32; N]; 3]) -> [[f32; N]; 3] {
    let mut all = a;
    for ((all, b), c) in all.iter_mut().zip(b).zip(c) {
        *all += b + c;
    }
    [a, all, c]
}

/// The convolution of the pictures in `x`, each made twice as large, and `terms`. `x`
/// has a row above and a row below that are neighbours only; `height` and `width` rows and columns without them become
/// twice as many.
pub(crate) fn upsampled_conv2d(
    x: &[f32],
    weights: &SummedWeights,
    terms: Terms<'_>,
    height: usize,
    width: usize,
) -> Vec<f32> {
    upsampled_conv2d_with(InstructionSet::best(), x, weights, terms, [height, width])
}

pub(super) fn upsampled_conv2d_with(
    set: InstructionSet,
    x: &[f32],
    weights: &SummedWeights,
    terms: Terms<'_>,
    [height, width]: [usize; 2],
) -> Vec<f32> {
    let SummedWeights {
        in_channels,
        out_channels,
        ..
    } = *weights;
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
    let batch = x.len() / (in_channels * sizes.pixels()).max(1);
    let mut result = vec![0.0; batch * out_channels * 4 * height * width];
    assert!(
        x.len() == batch * in_channels * sizes.pixels() && terms.fit(batch, out_channels, 4 * height * width),
        "a convolution does not fit its values. This is a bug."
    );
    let convolution = Convolution {
        x,
        weights,
        terms,
        sizes,
        result: Output(result.as_mut_ptr()),
    };
    let cut = Cut::new(batch, &sizes, &LIMITS);
    (0..cut.tasks(batch, &sizes)).into_par_iter().for_each(|index| {
        let block = &cut.block(index, batch, &sizes);
        let spots = &spots(block, set.lanes());
        let buffers = buffers(&sizes, block, spots.len() * set.lanes());
        with_scratch(buffers.iter().sum(), |scratch| {
            set.run(Task {
                convolution: &convolution,
                block,
                spots,
                buffers,
                scratch,
            });
        });
    });
    result
}

/// A convolution that is shared among tasks.
#[derive(Debug)]
struct Convolution<'a> {
    x: &'a [f32],
    weights: &'a SummedWeights,
    terms: Terms<'a>,
    /// In pixels of the smaller picture.
    sizes: Sizes,
    result: Output,
}

/// Vectors of the block's pixels, row after row.
fn spots(block: &Block, lanes: usize) -> Vec<Spot> {
    let pixels = block.rows.len() * block.columns.len();
    let mut spots = Vec::new();
    for picture in 0..block.pictures.len() {
        for first in (0..pixels).step_by(lanes) {
            spots.push(Spot {
                offset: picture * pixels + first,
                picture: block.pictures.start + picture,
                to: first,
                count: lanes.min(pixels - first),
            });
        }
    }
    spots
}

/// The lengths of a task's buffers: of planes, of three lines with a pixel on either side, of sums and of pixels, where there
/// are so many of the latter.
fn buffers(sizes: &Sizes, block: &Block, pixels: usize) -> [usize; 4] {
    let of_block = block.pictures.len() * block.rows.len() * block.columns.len();
    [
        in_parts(sizes.in_channels, PART) * TERMS * of_block + SLACK,
        3 * (block.columns.len() + 2),
        block.channels.len() * TERMS * pixels,
        4 * pixels,
    ]
}

struct Task<'a> {
    convolution: &'a Convolution<'a>,
    block: &'a Block,
    spots: &'a [Spot],
    buffers: [usize; 4],
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            convolution,
            block,
            spots,
            buffers,
            scratch,
        } = self;
        let (planes, rest) = scratch.split_at_mut(buffers[0]);
        let (lines, rest) = rest.split_at_mut(buffers[1]);
        let (sums, pixels) = rest.split_at_mut(buffers[2]);
        let inputs = convolution.sizes.in_channels;
        let (part, outputs) = (in_parts(inputs, PART), block.channels.len());
        let of_block = block.pictures.len() * block.rows.len() * block.columns.len();
        let vectors = spots.len() * S::LANES;
        for first in (0..inputs).step_by(part) {
            let channels = part.min(inputs - first);
            let planes_of_channels = planes.chunks_exact_mut(TERMS * of_block).take(channels);
            for (channel, plane) in planes_of_channels.enumerate() {
                convolution.fill(block, first + channel, lines, plane);
            }
            for term in 0..TERMS {
                let weights = (block.channels.start * TERMS + term) * inputs + first;
                let part = Part {
                    places: &[0],
                    spots,
                    planes: planes[term * of_block..].as_ptr(),
                    plane_step: TERMS * of_block,
                    channels,
                    weights: convolution.weights.values[weights..].as_ptr(),
                    weight_step: TERMS * inputs,
                    outputs,
                    sums: sums[term * outputs * vectors..].as_mut_ptr(),
                    is_first: first == 0,
                    in_pairs: false,
                };
                // SAFETY: there are so many planes, each with this term, and values after them; so many weights of each output
                // channel; and a vector for each channel and spot.
                unsafe { part.multiply(simd) };
            }
        }
        for (index, output) in block.channels.clone().enumerate() {
            let of = |term: usize| &sums[(term * outputs + index) * vectors..][..vectors];
            put_together(
                [of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8)],
                &mut pixels[..4 * vectors],
            );
            convolution.write(block, output, &pixels[..4 * vectors], planes);
        }
    }
}

impl Convolution<'_> {
    /// Fills a channel's plane: for each row and column of products what they are made with, of all pixels.
    #[inline(always)]
    fn fill(&self, block: &Block, channel: usize, lines: &mut [f32], plane: &mut [f32]) {
        let sizes = &self.sizes;
        let columns = block.columns.len();
        let of_block = plane.len() / TERMS;
        let before = sizes.columns_left.saturating_sub(block.columns.start);
        let from = block.columns.start.saturating_sub(sizes.columns_left);
        let inside = (sizes.width - from).min(columns + 2 - before);
        lines.fill(0.0);
        let mut to = 0;
        for picture in block.pictures.clone() {
            let channel = (picture * sizes.in_channels + channel) * sizes.pixels();
            for row in block.rows.clone() {
                let of = |row: usize| {
                    let first = channel + row * sizes.width + from;
                    &self.x[first..first + inside]
                };
                let (above, middle, below) = (of(row), of(row + 1), of(row + 2));
                let (first, rest) = lines.split_at_mut(columns + 2);
                let (second, third) = rest.split_at_mut(columns + 2);
                second[before..before + inside].copy_from_slice(middle);
                let inner = first[before..before + inside].iter_mut();
                for ((to, above), middle) in inner.zip(above).zip(middle) {
                    *to = above - middle;
                }
                let inner = third[before..before + inside].iter_mut();
                for ((to, below), middle) in inner.zip(below).zip(middle) {
                    *to = below - middle;
                }
                for (term, line) in [&*first, &*second, &*third].into_iter().enumerate() {
                    let terms = &mut plane[3 * term * of_block + to..];
                    differences(line, terms, of_block);
                }
                to += columns;
            }
        }
    }

    /// Writes the pixels of an output channel where they belong, of which `pixels` has the upper left ones, the upper right, the
    /// lower left and the lower right ones. `line` has room for a row.
    #[inline(always)]
    fn write(&self, block: &Block, output: usize, pixels: &[f32], line: &mut [f32]) {
        let sizes = &self.sizes;
        let (columns, width) = (block.columns.len(), 2 * sizes.out_width);
        let vectors = pixels.len() / 4;
        let of_picture = vectors / block.pictures.len();
        let line = &mut line[..2 * columns];
        for (index, picture) in block.pictures.clone().enumerate() {
            let channel = (picture * sizes.out_channels + output) * 4 * sizes.out_pixels();
            let bias = self.terms.bias(picture, output, sizes.out_channels);
            for (row, y) in block.rows.clone().enumerate() {
                for lower in 0..2 {
                    let first = 2 * lower * vectors + index * of_picture + row * columns;
                    let (left, right) = (&pixels[first..], &pixels[first + vectors..]);
                    let (left, right) = (&left[..columns], &right[..columns]);
                    for ((pair, left), right) in line.as_chunks_mut::<2>().0.iter_mut().zip(left).zip(right) {
                        *pair = [left + bias, right + bias];
                    }
                    let place = channel + (2 * y + lower) * width + 2 * block.columns.start;
                    if let Some(onto) = self.terms.onto {
                        for (value, onto) in line.iter_mut().zip(&onto[place..place + 2 * columns]) {
                            *value += onto;
                        }
                    }
                    // SAFETY: the row lies inside of the result, which lives until all tasks are done, and no other task has the
                    // same pixels of it.
                    unsafe { self.result.write(place, line) };
                }
            }
        }
    }
}

/// Writes for each value of a line but the ends what its left neighbour is more, the value, and what its right neighbour is
/// more, each `step` after the one before.
#[inline(always)]
fn differences(line: &[f32], to: &mut [f32], step: usize) {
    let count = line.len() - 2;
    let (left, middle, right) = (&line[..count], &line[1..][..count], &line[2..][..count]);
    let (first, rest) = to.split_at_mut(step);
    let (second, third) = rest.split_at_mut(step);
    let (first, second, third) = (&mut first[..count], &mut second[..count], &mut third[..count]);
    for index in 0..count {
        first[index] = left[index] - middle[index];
        second[index] = middle[index];
        third[index] = right[index] - middle[index];
    }
}

/// Writes the upper left pixels, the upper right, the lower left and the lower right ones: each is the sum of the products of
/// two rows and two columns.
#[inline(always)]
fn put_together(terms: [&[f32]; TERMS], to: &mut [f32]) {
    let count = terms[0].len();
    let (upper_left, rest) = to.split_at_mut(count);
    let (upper_right, rest) = rest.split_at_mut(count);
    let (lower_left, lower_right) = rest.split_at_mut(count);
    let terms = terms.map(|term| &term[..count]);
    let lower_right = &mut lower_right[..count];
    for index in 0..count {
        let [a, b, c, d, e, f, g, h, i] = terms.map(|term| term[index]);
        let (left, right) = (d + e, e + f);
        upper_left[index] = (a + b) + left;
        upper_right[index] = (b + c) + right;
        lower_left[index] = (g + h) + left;
        lower_right[index] = (h + i) + right;
    }
}
