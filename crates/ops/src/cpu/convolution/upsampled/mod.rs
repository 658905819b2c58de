//! 3x3 convolutions after nearest-neighbour upsampling by 2, with a quarter of the products.
//!
//! Upsampled pixels are copies: of the 3 in a row under the kernel two are equal. With weights `a`, `b`, `c`
//! and input pixels `p`, `q`, `r`, the two output pixels at `q` are `a p + (b + c) q` and `(a + b) q + c r`.
//! Both contain `(a + b + c) q`; the first adds `a (p - q)`, the second `c (r - q)`. That is 3 products
//! instead of 6, and in two dimensions 9 instead of 36. The upsampled image is never stored.
//!
//! The weights of a small image are summed by each task for itself: they would take longer to be written to memory and
//! read again than to be summed. Those of others are summed once, before the first task.

// Several slices are indexed together.
#![allow(clippy::needless_range_loop)]

mod weights;

use std::ops::Range;

use super::panel::{PANEL, widened};
use super::partition::{Block, Limits, Partition, PixelVector, in_parts};
use super::rows::{copy_rows, fetch_rows, write};
use super::tile::{Part, SLACK};
use super::{Addends, Output, Sizes};
use crate::cpu::buffers::{aligned_length, split_aligned};
use crate::cpu::kernel::Values;
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::tiles::{SIDE, TileUnit};
use crate::cpu::simd::{InstructionSet, Kernel, Simd};
use crate::cpu::target::Target;
use crate::cpu::threads::for_each_task;

use self::weights::{Form, Summing};
pub(crate) use self::weights::{SummedWeights, Weight};

/// Products for an input pixel: of three rows and three columns.
const TERMS: usize = 9;
/// Input channels, or pairs of them, of a part.
const PART: usize = 64;
/// Values of a channel's rows that are copied at a time.
const LINES: usize = 1024;

/// Blocks of pixels for which the tasks of some output channels each sum the weights.
const FEW_BLOCKS: usize = 2;

/// Size limits of tasks, in input pixels.
const LIMITS: Limits = Limits {
    pixels: 128,
    group: 1,
    rows: 4,
    channels: 64,
    plane: TERMS * 128,
    plane_of: |_, images, rows, columns| TERMS * images * rows * columns,
};

/// An upper bound for the floats of a task.
pub(crate) fn task(in_channels: usize, out_channels: usize) -> usize {
    let outputs = out_channels.min(LIMITS.channels).next_multiple_of(PANEL);
    let part = in_parts(in_channels, PART).max(part_in_tiles(in_channels.div_ceil(2)));
    Buffers {
        lines: 2 * LINES,
        planes: part * LIMITS.plane + TERMS * SLACK,
        sums: TERMS * outputs * LIMITS.pixels,
        pixels: 4 * LIMITS.pixels,
        widened: widened(TERMS * 2 * part),
        before_tiles: TERMS * PANEL * part,
        panels: TERMS * outputs * part,
    }
    .total()
}

/// Pairs of channels of a part in whole tiles.
fn part_in_tiles(pairs: usize) -> usize {
    SIDE * in_parts(pairs.div_ceil(SIDE), PART / SIDE)
}

/// Floats of the summed weights.
pub(crate) fn weights(in_channels: usize, out_channels: usize) -> usize {
    TERMS * in_channels.max(SIDE) * out_channels.next_multiple_of(PANEL)
}

/// The convolution of the images in `x` after upsampling by 2, plus `addends`. `x` has an additional row
/// above and below; `height` and `width` are the rows and columns without them, which are doubled. `summed` is none, or
/// what an earlier call with the same weight has left there for later ones.
pub(crate) fn upsampled_conv2d(
    x: &[f32],
    weight: Weight<'_>,
    summed: &mut Option<SummedWeights>,
    addends: Addends<'_>,
    size: [usize; 2],
) -> Vec<f32> {
    upsampled_conv2d_with(
        InstructionSet::best(),
        FEW_BLOCKS,
        x,
        weight,
        summed,
        addends,
        size,
    )
}

/// As [`upsampled_conv2d`], with the vectors of `set`. Weights are summed by tasks for at most `few_blocks` blocks of
/// pixels.
pub(super) fn upsampled_conv2d_with(
    set: InstructionSet,
    few_blocks: usize,
    x: &[f32],
    weight: Weight<'_>,
    summed: &mut Option<SummedWeights>,
    addends: Addends<'_>,
    [height, width]: [usize; 2],
) -> Vec<f32> {
    let Weight {
        in_channels,
        out_channels,
        values,
    } = weight;
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
    let length = batch * out_channels * 4 * height * width;
    let mut result = Vec::with_capacity(length);
    assert!(
        x.len() == batch * in_channels * sizes.pixels()
            && values.len() == TERMS * in_channels * out_channels
            && addends.fit(batch, out_channels, 4 * height * width),
        "a convolution does not fit its values. This is a bug."
    );
    let partition = Partition::new(batch, &sizes, &LIMITS);
    if partition.pixel_blocks(batch, &sizes) > few_blocks && summed.is_none() {
        *summed = Some(SummedWeights::new(set, weight));
    }
    let convolution = UpsampledConvolution {
        x,
        weight: values,
        form: Form::new(set, weight),
        summed: summed.as_ref(),
        addends,
        sizes,
        result: Output(result.as_mut_ptr()),
    };
    for_each_task(partition.tasks(batch, &sizes), |index| {
        let block = &partition.block(index, batch, &sizes);
        let pixel_vectors = &pixel_vectors(block, set.lanes());
        let buffers = Buffers::new(&convolution, block, set.lanes());
        with_scratch(buffers.total(), |scratch| {
            set.run(Task {
                convolution: &convolution,
                block,
                pixel_vectors,
                buffers,
                scratch,
            });
        });
    });
    // SAFETY: every pixel of every channel belongs to a block, which has been made.
    unsafe { result.set_len(length) };
    result
}

/// A convolution, shared by all tasks.
#[derive(Debug)]
struct UpsampledConvolution<'a> {
    x: &'a [f32],
    weight: Values<'a>,
    form: Form,
    /// None if each task sums the weights that it needs.
    summed: Option<&'a SummedWeights>,
    addends: Addends<'a>,
    /// In input pixels.
    sizes: Sizes,
    result: Output,
}

/// Vectors of the block's pixels, row after row.
fn pixel_vectors(block: &Block, lanes: usize) -> Vec<PixelVector> {
    let pixels = block.rows.len() * block.columns.len();
    let mut pixel_vectors = Vec::new();
    for image in 0..block.images.len() {
        for first in (0..pixels).step_by(lanes) {
            pixel_vectors.push(PixelVector {
                offset: image * pixels + first,
                image: block.images.start + image,
                to: first,
                count: lanes.min(pixels - first),
            });
        }
    }
    pixel_vectors
}

/// The lengths of a task's buffers.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    /// Rows of pixels, for each channel of an element.
    lines: usize,
    /// Pixels and their differences.
    planes: usize,
    /// Accumulated products.
    sums: usize,
    /// Output pixels.
    pixels: usize,
    /// The buffers of [`Form::buffers`], if the task sums weights.
    widened: usize,
    before_tiles: usize,
    /// A part of the weights, summed.
    panels: usize,
}

impl Buffers {
    fn new(convolution: &UpsampledConvolution<'_>, block: &Block, lanes: usize) -> Self {
        let form = &convolution.form;
        let of_image = block.rows.len() * block.columns.len();
        let vectors = of_image.next_multiple_of(lanes);
        let outputs = block.channels.len().next_multiple_of(PANEL);
        let [widened, before_tiles, panels] = match convolution.summed {
            Some(_) => [0; 3],
            None => {
                let [widened, before_tiles] = form.buffers();
                [widened, before_tiles, TERMS * outputs * form.part()]
            }
        };
        Self {
            lines: form.pair() * LINES,
            planes: TERMS * (form.part() * block.images.len() * of_image + SLACK),
            sums: TERMS * outputs * block.images.len() * vectors,
            pixels: 4 * vectors,
            widened,
            before_tiles,
            panels,
        }
    }

    fn lengths(self) -> [usize; 7] {
        [
            self.lines,
            self.planes,
            self.sums,
            self.pixels,
            self.widened,
            self.before_tiles,
            self.panels,
        ]
    }

    fn total(self) -> usize {
        aligned_length(self.lengths())
    }
}

struct Task<'a> {
    convolution: &'a UpsampledConvolution<'a>,
    block: &'a Block,
    pixel_vectors: &'a [PixelVector],
    buffers: Buffers,
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            convolution,
            block,
            pixel_vectors,
            ..
        } = self;
        let [lines, planes, sums, pixels, widened, before_tiles, panels] =
            split_aligned(self.scratch, self.buffers.lengths());
        let form = convolution.form;
        let _unit = form.in_tiles.then(|| TileUnit::new(simd));
        let outputs = block.channels.len();
        let plane = block.images.len() * block.rows.len() * block.columns.len();
        let (plane_step, sums_step) = (planes.len() / TERMS, sums.len() / TERMS);
        // The zero padding, which is not overwritten.
        lines.fill(0.0);
        for part in 0..form.parts() {
            let channels = form.channels(part);
            convolution.fill(simd, block, &channels, lines, planes);
            if convolution.summed.is_none() {
                Summing {
                    weight: convolution.weight,
                    form,
                    channels: channels.clone(),
                    outputs: block.channels.clone(),
                    buffers: [&mut *widened, &mut *before_tiles],
                    target: Target::of(panels),
                }
                .run(simd);
            }
            if form.in_tiles {
                let first_empty = channels.len().div_ceil(2);
                let empty = first_empty * plane..first_empty.next_multiple_of(SIDE) * plane;
                for planes in planes.chunks_exact_mut(plane_step) {
                    planes[empty.clone()].fill(0.0);
                }
            }
            for term in 0..TERMS {
                let weights = match convolution.summed {
                    Some(summed) => summed.panels(&channels, term, block.channels.start),
                    None => &panels[term * form.of_term(&channels, outputs)..],
                };
                let part = Part {
                    taps: &[0],
                    pixel_vectors,
                    planes: planes[term * plane_step..].as_ptr(),
                    plane_step: plane,
                    channels: channels.len().div_ceil(form.pair()),
                    weights: weights.as_ptr(),
                    outputs,
                    sums: sums[term * sums_step..].as_mut_ptr(),
                    is_first: part == 0,
                    in_pairs: form.in_pairs,
                };
                // SAFETY: there are so many planes of this term, and values after them; panels of so many
                // outputs and elements; and a vector for each output channel and vector of pixels.
                unsafe { part.multiply(simd) };
            }
        }
        convolution.finish(simd, block, sums, pixels);
    }
}

impl UpsampledConvolution<'_> {
    /// Copies the pixels of some channels and computes, for each term, the factor of every pixel.
    #[inline(always)]
    fn fill<S: Simd>(
        &self,
        simd: S,
        block: &Block,
        channels: &Range<usize>,
        lines: &mut [f32],
        planes: &mut [f32],
    ) {
        let (sizes, pair) = (&self.sizes, self.form.pair());
        let (rows, columns) = (block.rows.len(), block.columns.len());
        let plane = block.images.len() * rows * columns;
        let (of_channel, term_step) = (lines.len() / pair, planes.len() / TERMS);
        let line = columns.next_multiple_of(S::LANES) + 2;
        // Each row needs its neighbours.
        let at_a_time = of_channel / line - 2;
        let elements = channels.len().div_ceil(pair);
        assert!(
            at_a_time > 0 && elements * plane + SLACK <= term_step && S::LANES <= SLACK,
            "the buffer of planes is too small. This is a bug."
        );
        let before = sizes.columns_left.saturating_sub(block.columns.start);
        let from = block.columns.start.saturating_sub(sizes.columns_left);
        let inside = (sizes.width - from).min(columns + 2 - before);
        for element in 0..elements {
            let first = channels.start + element * pair;
            if first + pair > channels.end {
                // The last channel has no partner.
                lines[of_channel..].fill(0.0);
            }
            for (index, image) in block.images.clone().enumerate() {
                for begin in (0..rows).step_by(at_a_time) {
                    let count = at_a_time.min(rows - begin);
                    let row = block.rows.start + begin;
                    for (channel, lines) in (first..channels.end).zip(lines.chunks_exact_mut(of_channel)) {
                        let source =
                            (image * sizes.in_channels + channel) * sizes.pixels() + row * sizes.width + from;
                        let source = &self.x[source..source + (count + 1) * sizes.width + inside];
                        let next = source.as_ptr().wrapping_add(pair * sizes.pixels());
                        fetch_rows(simd, (next, sizes.width), [count + 2, inside]);
                        copy_rows(
                            simd,
                            (source, sizes.width),
                            (&mut lines[before..], line),
                            [count + 2, inside],
                        );
                    }
                    for row in 0..count {
                        let to = element * plane + (index * rows + begin + row) * columns;
                        for column in (0..columns).step_by(S::LANES) {
                            // SAFETY: a line has as many values as vectors of pixels see, and two more lines
                            // were copied than rows are made. Values behind the end of a row lie before what
                            // is written next, or in what was left after all planes.
                            unsafe {
                                let from = lines.as_ptr().add(row * line + column);
                                let to = planes.as_mut_ptr().add(to + column);
                                let terms = differences(simd, from, line);
                                if self.form.in_pairs {
                                    let odd = differences(simd, from.add(of_channel), line);
                                    for term in 0..TERMS {
                                        simd.store(
                                            to.add(term * term_step),
                                            simd.pair(terms[term], odd[term]),
                                        );
                                    }
                                } else {
                                    for term in 0..TERMS {
                                        simd.store(to.add(term * term_step), terms[term]);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Combines the sums to pixels and writes them.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, block: &Block, sums: &[f32], pixels: &mut [f32]) {
        let sizes = &self.sizes;
        let (images, columns, width) = (block.images.len(), block.columns.len(), 2 * sizes.out_width);
        let term_step = sums.len() / TERMS;
        let (upper, lower) = pixels.split_at_mut(pixels.len() / 2);
        let vectors = upper.len() / 2;
        assert!(
            block.channels.len() * images * vectors <= term_step,
            "sums are not as many as was thought. This is a bug."
        );
        for (index, output) in block.channels.clone().enumerate() {
            for (place, image) in block.images.clone().enumerate() {
                let bias = simd.splat(self.addends.bias(image, output, sizes.out_channels));
                let sums = &sums[(index * images + place) * vectors..];
                for vector in (0..vectors).step_by(S::LANES) {
                    // SAFETY: there is a vector for each product, and space for the pixels of a vector in both
                    // rows.
                    unsafe {
                        let mut terms = [simd.zero(); TERMS];
                        for term in 0..TERMS {
                            terms[term] = simd.load(sums.as_ptr().add(term * term_step + vector));
                        }
                        let rows = put_together(simd, terms, bias);
                        for (row, to) in rows.into_iter().zip([upper.as_mut_ptr(), lower.as_mut_ptr()]) {
                            simd.store(to.add(2 * vector), row[0]);
                            simd.store(to.add(2 * vector + S::LANES), row[1]);
                        }
                    }
                }
                let channel = (image * sizes.out_channels + output) * 4 * sizes.out_pixels();
                for (row, y) in block.rows.clone().enumerate() {
                    for (half, pixels) in [&*upper, &*lower].into_iter().enumerate() {
                        let first = channel + (2 * y + half) * width + 2 * block.columns.start;
                        let pixels = &pixels[2 * row * columns..][..2 * columns];
                        let onto = self.addends.onto.map(|onto| &onto[first..first + 2 * columns]);
                        // SAFETY: the row lies inside of the result, which lives until all tasks are done,
                        // and no other task has the same pixels of it.
                        unsafe { write(simd, pixels, onto, self.result.0.add(first)) };
                    }
                }
            }
        }
    }
}

/// For three rows, `step` apart, from the left neighbours of the pixels on: the difference of the upper row
/// to the middle one, the middle row, and the difference of the lower row; of each of these the same for
/// columns.
///
/// # Safety
/// `LANES + 2` values of each can be read.
#[inline(always)]
unsafe fn differences<S: Simd>(simd: S, from: *const f32, step: usize) -> [S::Vector; TERMS] {
    let mut columns = [[simd.zero(); 3]; 3];
    for column in 0..3 {
        // SAFETY: guaranteed by the caller.
        let (above, middle, below) = unsafe {
            let from = from.add(column);
            (
                simd.load(from),
                simd.load(from.add(step)),
                simd.load(from.add(2 * step)),
            )
        };
        columns[column] = [simd.sub(above, middle), middle, simd.sub(below, middle)];
    }
    let [left, middle, right] = columns;
    let mut terms = [simd.zero(); TERMS];
    for row in 0..3 {
        terms[3 * row] = simd.sub(left[row], middle[row]);
        terms[3 * row + 1] = middle[row];
        terms[3 * row + 2] = simd.sub(right[row], middle[row]);
    }
    terms
}

/// Consecutive pixels of the upper and the lower output row: each is the sum of the products of two rows and
/// two columns.
#[inline(always)]
fn put_together<S: Simd>(simd: S, terms: [S::Vector; TERMS], bias: S::Vector) -> [[S::Vector; 2]; 2] {
    let [a, b, c, d, e, f, g, h, i] = terms;
    let (left, right) = (simd.add(simd.add(d, e), bias), simd.add(simd.add(e, f), bias));
    [
        simd.interleave(simd.add(simd.add(a, b), left), simd.add(simd.add(b, c), right)),
        simd.interleave(simd.add(simd.add(g, h), left), simd.add(simd.add(h, i), right)),
    ]
}
