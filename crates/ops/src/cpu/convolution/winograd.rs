//! Convolutions by kernels of 3 columns with half of the products.
//!
//! 4 neighbours in a row are made of 6 products a row of the kernel instead of 12: of combinations of the 6 pixels that
//! they see and of combinations of the 3 weights. Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray,
//! "Fast Algorithms for Convolutional Neural Networks", 2016, in the notation of whom this is F(4, 3). It is done along
//! rows alone, so that rows do not depend on how a picture is cut into bands, and rounding errors stay those of a sum.
//!
//! A pixel depends on the 6 that its group of 4 sees: what is not finite is not a number in all of a group.

// Many lists are gone through side by side.
#![allow(clippy::needless_range_loop)]

use super::cut::{Block, Limits, Spot, part};
use super::tile::{Part, SLACK};
use super::{Convolution, Sizes};
use crate::cpu::simd::{Kernel, Simd};

/// Pixels that are made together.
pub(super) const GROUP: usize = 4;
/// Combinations that they are made of.
pub(super) const TERMS: usize = 6;
/// Columns of the kernel.
const COLUMNS: usize = 3;

/// How large tasks are.
pub(super) const LIMITS: Limits = Limits {
    pixels: 768,
    channels: 64,
    plane: 1536,
    plane_of: Layout::plane_of,
};

/// Floats that a task takes, at most.
pub(super) fn most(channels: usize, outputs: usize, places: usize) -> usize {
    let (part, outputs) = (part(channels, places), outputs.min(LIMITS.channels));
    let weights = places + outputs * TERMS * places.div_ceil(COLUMNS);
    part * (LIMITS.plane + weights) + (TERMS * outputs + GROUP) * LIMITS.pixels_of_vectors() / GROUP
}

/// Whether a convolution is made this way: where there is enough to multiply, and groups are mostly full. It depends on nothing
/// that bands of rows differ in.
pub(super) fn suits(sizes: &Sizes) -> bool {
    let (width, groups) = (sizes.out_width, sizes.out_width.div_ceil(GROUP));
    sizes.kernel_width == COLUMNS
        && sizes.stride == 1
        && sizes.in_channels.min(sizes.out_channels) >= 8
        && groups * GROUP * 3 <= width * 4
}

/// How the combinations of pixels lie in a plane, one for each channel that goes in: for each term all rows that go in, group
/// after group.
#[derive(Debug)]
pub(super) struct Layout {
    rows: usize,
    /// Groups of a row.
    groups: usize,
    /// Combinations of a term.
    term: usize,
    /// How far each row of the kernel is from the first one.
    places: Vec<usize>,
    /// Vectors of groups.
    spots: Vec<Spot>,
}

impl Layout {
    /// Values of a plane that holds what so many pixels need.
    fn plane_of(sizes: &Sizes, pictures: usize, rows: usize, columns: usize) -> usize {
        TERMS * pictures * (rows + sizes.kernel_height - 1) * columns.div_ceil(GROUP)
    }

    pub(super) fn new(sizes: &Sizes, block: &Block, lanes: usize) -> Self {
        let (pictures, groups) = (block.pictures.len(), block.columns.len().div_ceil(GROUP));
        let rows = block.rows.len() + sizes.kernel_height - 1;
        let all = block.rows.len() * groups;
        let mut spots = Vec::new();
        for picture in 0..pictures {
            for first in (0..all).step_by(lanes) {
                spots.push(Spot {
                    offset: picture * rows * groups + first,
                    picture: block.pictures.start + picture,
                    to: first,
                    count: lanes.min(all - first),
                });
            }
        }
        Self {
            rows,
            groups,
            term: pictures * rows * groups,
            places: (0..sizes.kernel_height).map(|row| row * groups).collect(),
            spots,
        }
    }

    /// Values of what is laid out of a row on the way: its pixels with two more at the ends, every fourth of them, and so on.
    fn line(&self) -> usize {
        2 * GROUP * (self.groups + 1)
    }
}

/// A task's buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    planes: usize,
    line: usize,
    widened: usize,
    weights: usize,
    sums: usize,
}

impl Buffers {
    pub(super) fn new(convolution: &Convolution<'_>, block: &Block, layout: &Layout, lanes: usize) -> Self {
        let (outputs, places) = (block.channels.len(), convolution.sizes.places());
        let part = convolution.part();
        let spots = layout.spots.len() * lanes;
        Self {
            planes: part * TERMS * layout.term + SLACK,
            line: layout.line(),
            widened: part * places,
            weights: outputs * part * TERMS * convolution.sizes.kernel_height,
            sums: (TERMS * outputs + GROUP) * spots,
        }
    }

    pub(super) fn total(self) -> usize {
        self.planes + self.line + self.widened + self.weights + self.sums
    }
}

pub(super) struct Task<'a> {
    pub(super) convolution: &'a Convolution<'a>,
    pub(super) block: &'a Block,
    pub(super) layout: &'a Layout,
    pub(super) buffers: Buffers,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            convolution,
            block,
            layout,
            buffers,
            scratch,
        } = self;
        let (planes, rest) = scratch.split_at_mut(buffers.planes);
        let (line, rest) = rest.split_at_mut(buffers.line);
        let (widened, rest) = rest.split_at_mut(buffers.widened);
        let (weights, sums) = rest.split_at_mut(buffers.weights);
        let sizes = &convolution.sizes;
        let (part, outputs) = (convolution.part(), block.channels.len());
        let spots = layout.spots.len() * S::LANES;
        for first in (0..sizes.in_channels).step_by(part) {
            let channels = part.min(sizes.in_channels - first);
            for (index, plane) in planes
                .chunks_exact_mut(TERMS * layout.term)
                .take(channels)
                .enumerate()
            {
                fill(convolution, block, layout, first + index, line, plane);
            }
            let rows = channels * sizes.kernel_height;
            for (index, output) in block.channels.clone().enumerate() {
                let from = (output * sizes.in_channels + first) * sizes.places();
                let kernel = convolution.floats(simd, from, &mut widened[..channels * sizes.places()]);
                combine_weights(kernel, &mut weights[index * rows..], outputs * rows);
            }
            for term in 0..TERMS {
                let part = Part {
                    places: &layout.places,
                    spots: &layout.spots,
                    planes: planes[term * layout.term..].as_ptr(),
                    plane_step: TERMS * layout.term,
                    channels,
                    weights: weights[term * outputs * rows..].as_ptr(),
                    weight_step: rows,
                    outputs,
                    sums: sums[term * outputs * spots..].as_mut_ptr(),
                    is_first: first == 0,
                    in_pairs: false,
                };
                // SAFETY: there are so many planes, each with this term, and values after them; so many weights, which were
                // combined above; and a vector for each channel and spot.
                unsafe { part.multiply(simd) };
            }
        }
        let (sums, pixels) = sums.split_at_mut(TERMS * outputs * spots);
        for (index, output) in block.channels.clone().enumerate() {
            let of = |term: usize| &sums[(term * outputs + index) * spots..][..spots];
            separate(
                [of(0), of(1), of(2), of(3), of(4), of(5)],
                &mut pixels[..GROUP * spots],
            );
            write::<S>(convolution, block, layout, output, &pixels[..GROUP * spots], line);
        }
    }
}

/// Fills a channel's plane.
#[inline(always)]
fn fill(
    convolution: &Convolution<'_>,
    block: &Block,
    layout: &Layout,
    channel: usize,
    line: &mut [f32],
    plane: &mut [f32],
) {
    let sizes = &convolution.sizes;
    let groups = layout.groups;
    let (line, columns) = line.split_at_mut(GROUP * (groups + 1));
    // The pixels of a row of the block and those beside them, between zeros.
    let before = sizes.columns_left.saturating_sub(block.columns.start);
    let from = block.columns.start.saturating_sub(sizes.columns_left);
    let inside = (sizes.width - from).min(line.len() - before);
    line[..before].fill(0.0);
    line[before + inside..].fill(0.0);
    for (index, picture) in block.pictures.clone().enumerate() {
        let channel = (picture * sizes.in_channels + channel) * sizes.pixels();
        for row in 0..layout.rows {
            let to = (index * layout.rows + row) * groups;
            let of_picture = (block.rows.start + row).checked_sub(sizes.rows_above);
            let Some(row) = of_picture.filter(|&row| row < sizes.height) else {
                for term in 0..TERMS {
                    plane[term * layout.term + to..][..groups].fill(0.0);
                }
                continue;
            };
            let source = channel + row * sizes.width + from;
            line[before..before + inside].copy_from_slice(&convolution.x[source..source + inside]);
            take_apart(line, columns);
            combine(columns, groups, &mut plane[to..], layout.term);
        }
    }
}

/// Writes every fourth value from the first on, then those from the second on, and so on.
#[inline(always)]
fn take_apart(line: &[f32], columns: &mut [f32]) {
    let count = line.len() / GROUP;
    let (first, rest) = columns.split_at_mut(count);
    let (second, rest) = rest.split_at_mut(count);
    let (third, rest) = rest.split_at_mut(count);
    let fourth = &mut rest[..count];
    let (groups, _) = line.as_chunks::<GROUP>();
    for index in 0..count {
        [first[index], second[index], third[index], fourth[index]] = groups[index];
    }
}

/// Writes the combinations of the 6 pixels that each group sees: the transposed B of the paper, by the points 0, 1, -1, 2
/// and -2.
#[inline(always)]
fn combine(columns: &[f32], groups: usize, plane: &mut [f32], term: usize) {
    let count = groups + 1;
    let of = |column: usize| {
        let from = column / GROUP;
        &columns[column % GROUP * count + from..][..groups]
    };
    let [a, b, c, d, e, f] = [of(0), of(1), of(2), of(3), of(4), of(5)];
    let (first, rest) = plane.split_at_mut(term);
    let (second, rest) = rest.split_at_mut(term);
    let (third, rest) = rest.split_at_mut(term);
    let (fourth, rest) = rest.split_at_mut(term);
    let (fifth, sixth) = rest.split_at_mut(term);
    let (first, second, third) = (&mut first[..groups], &mut second[..groups], &mut third[..groups]);
    let (fourth, fifth, sixth) = (&mut fourth[..groups], &mut fifth[..groups], &mut sixth[..groups]);
    for index in 0..groups {
        let [a, b, c, d, e, f] = [a[index], b[index], c[index], d[index], e[index], f[index]];
        let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
        let (even_two, odd_two) = (e - c, 2.0 * (d - b));
        first[index] = 4.0 * (a - c) + even_two;
        second[index] = even + odd;
        third[index] = even - odd;
        fourth[index] = even_two + odd_two;
        fifth[index] = even_two - odd_two;
        sixth[index] = (f - d) - 2.0 * odd_two;
    }
}

/// Writes the combinations of the 3 weights of each row of the kernel, those of a term `step` after those of the one before:
/// the paper's G.
#[inline(always)]
fn combine_weights(kernel: &[f32], to: &mut [f32], step: usize) {
    let (rows, _) = kernel.as_chunks::<COLUMNS>();
    let count = rows.len();
    let (first, rest) = to.split_at_mut(step);
    let (second, rest) = rest.split_at_mut(step);
    let (third, rest) = rest.split_at_mut(step);
    let (fourth, rest) = rest.split_at_mut(step);
    let (fifth, sixth) = rest.split_at_mut(step);
    let (first, second, third) = (&mut first[..count], &mut second[..count], &mut third[..count]);
    let (fourth, fifth, sixth) = (&mut fourth[..count], &mut fifth[..count], &mut sixth[..count]);
    for index in 0..count {
        let [a, b, c] = rows[index];
        let (outer, outer_two) = ((a + c) * (-1.0 / 6.0), (a + 4.0 * c) * (1.0 / 24.0));
        first[index] = a * 0.25;
        second[index] = outer - b * (1.0 / 6.0);
        third[index] = outer + b * (1.0 / 6.0);
        fourth[index] = outer_two + b * (1.0 / 12.0);
        fifth[index] = outer_two - b * (1.0 / 12.0);
        sixth[index] = c;
    }
}

/// Writes the first pixel of each group, then the second of each, and so on: the transposed A of the paper.
#[inline(always)]
fn separate([a, b, c, d, e, f]: [&[f32]; TERMS], to: &mut [f32]) {
    let count = a.len();
    let (first, rest) = to.split_at_mut(count);
    let (second, rest) = rest.split_at_mut(count);
    let (third, fourth) = rest.split_at_mut(count);
    let (b, c, d) = (&b[..count], &c[..count], &d[..count]);
    let (e, f, fourth) = (&e[..count], &f[..count], &mut fourth[..count]);
    for index in 0..count {
        let (even, odd) = (b[index] + c[index], b[index] - c[index]);
        let (even_two, odd_two) = (d[index] + e[index], d[index] - e[index]);
        first[index] = a[index] + even + even_two;
        second[index] = odd + 2.0 * odd_two;
        third[index] = even + 4.0 * even_two;
        fourth[index] = odd + 8.0 * odd_two + f[index];
    }
}

/// Writes the pixels of an output channel where they belong.
#[inline(always)]
fn write<S: Simd>(
    convolution: &Convolution<'_>,
    block: &Block,
    layout: &Layout,
    output: usize,
    pixels: &[f32],
    line: &mut [f32],
) {
    let sizes = &convolution.sizes;
    let groups = layout.groups;
    let spots = pixels.len() / GROUP;
    let spots_a_picture = spots / block.pictures.len();
    let line = &mut line[..GROUP * groups];
    for (index, picture) in block.pictures.clone().enumerate() {
        let channel = (picture * sizes.out_channels + output) * sizes.out_pixels();
        let bias = convolution.terms.bias(picture, output, sizes.out_channels);
        for (row, to) in block.rows.clone().enumerate() {
            let of =
                |pixel: usize| &pixels[pixel * spots + index * spots_a_picture + row * groups..][..groups];
            let [a, b, c, d] = [of(0), of(1), of(2), of(3)];
            let (fours, _) = line.as_chunks_mut::<GROUP>();
            for index in 0..groups {
                fours[index] = [a[index] + bias, b[index] + bias, c[index] + bias, d[index] + bias];
            }
            let place = channel + to * sizes.out_width + block.columns.start;
            let line = &mut line[..block.columns.len()];
            if let Some(onto) = convolution.terms.onto {
                for (value, onto) in line.iter_mut().zip(&onto[place..place + block.columns.len()]) {
                    *value += onto;
                }
            }
            // SAFETY: the row lies inside of the result, which lives until all tasks are done, and no other task has the same
            // pixels of it.
            unsafe { convolution.result.write(place, line) };
        }
    }
}
