//! Winograd convolutions for kernels of 3 columns: F(4,3) on floats, F(2,3) on pairs of bf16.
//!
//! For each row of the kernel 4 neighbouring pixels need 6 products instead of 12, or with pairs of bf16 2
//! pixels need 4 instead of 6: products of transformed pixels and transformed weights ([`form`]). Winograd,
//! "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016. The transform is one-dimensional, along rows, so that rows do not depend on how an image
//! is split into bands, and rounding errors stay near those of a direct sum.
//!
//! A pixel depends on all inputs of its group: an infinity or NaN makes the whole group NaN.

// Several slices are indexed together.
#![allow(clippy::needless_range_loop)]

pub(super) mod form;

use std::marker::PhantomData;
use std::ops::Range;

use self::form::Form;
use super::panel::{PANEL, lay_floats, panels, widened};
use super::partition::{Block, Limits, PixelVector, part};
use super::rows::{copy_rows, fetch_rows};
use super::tile::{Part, SLACK};
use super::{Convolution, Sizes};
use crate::cpu::buffers::{aligned_length, split_aligned};
use crate::cpu::simd::{Kernel, Simd};

/// Columns of the kernel.
const COLUMNS: usize = 3;
/// Pixels of a task.
const PIXELS: usize = 512;
/// Values of a channel's rows that are copied at a time, twice as many if rows are short.
const LINES: usize = 1024;

/// Size limits of tasks.
pub(super) const fn limits<F: Form>() -> Limits {
    Limits {
        pixels: PIXELS,
        group: F::GROUP,
        rows: 8,
        channels: 64,
        // 10 rows for each 8 of a task.
        plane: F::TERMS * PIXELS / F::GROUP * 5 / 4,
        plane_of: Layout::plane_of::<F>,
    }
}

/// An upper bound for the floats of a task.
pub(super) fn most<F: Form>(channels: usize, outputs: usize, taps: usize) -> usize {
    let limits = limits::<F>();
    let part = part(channels.div_ceil(F::CHANNELS), taps);
    let outputs = outputs.min(limits.channels);
    Buffers {
        lines: F::CHANNELS * 2 * LINES,
        planes: part * limits.plane + F::TERMS * SLACK,
        widened: widened(part * F::CHANNELS * taps),
        panels: F::TERMS * panels(outputs, part * taps.div_ceil(COLUMNS)),
        sums: F::TERMS * outputs * limits.pixels / F::GROUP,
        pixels: limits.pixels,
    }
    .total()
}

/// Whether the algorithm suits a convolution: there is enough to multiply, and groups are mostly full. Bands
/// of the same image get the same answer.
pub(super) fn suits<F: Form>(sizes: &Sizes) -> bool {
    let products = sizes.out_width.div_ceil(F::GROUP) * F::TERMS;
    sizes.kernel_width == COLUMNS
        && sizes.kernel_height <= COLUMNS
        && sizes.stride == 1
        && sizes.in_channels.min(sizes.out_channels) >= 8
        && products * 9 <= COLUMNS * sizes.out_width * 7
}

/// The layout of transformed pixels: for each term a plane for each element, of all input rows, group after
/// group.
#[derive(Debug)]
pub(super) struct Layout {
    rows: usize,
    /// Groups of a row.
    groups: usize,
    /// Transformed values of an element for a term.
    plane: usize,
    /// Whether vectors of groups continue with the next row.
    are_joined: bool,
    /// The offset of each row of the kernel from the first one.
    taps: Vec<usize>,
    /// Vectors of groups.
    pixel_vectors: Vec<PixelVector>,
}

impl Layout {
    /// Transformed values of an element, for the given pixels.
    fn plane_of<F: Form>(sizes: &Sizes, images: usize, rows: usize, columns: usize) -> usize {
        F::TERMS * images * (rows + sizes.kernel_height - 1) * columns.div_ceil(F::GROUP)
    }

    pub(super) fn new<F: Form>(sizes: &Sizes, block: &Block, lanes: usize) -> Self {
        let (images, groups) = (block.images.len(), block.columns.len().div_ceil(F::GROUP));
        let rows = block.rows.len() + sizes.kernel_height - 1;
        let all = block.rows.len() * groups;
        let mut pixel_vectors = Vec::new();
        for image in 0..images {
            for first in (0..all).step_by(lanes) {
                pixel_vectors.push(PixelVector {
                    offset: image * rows * groups + first,
                    image: block.images.start + image,
                    to: first,
                    count: lanes.min(all - first),
                });
            }
        }
        Self {
            rows,
            groups,
            plane: images * rows * groups,
            are_joined: !groups.is_multiple_of(lanes),
            taps: (0..sizes.kernel_height).map(|row| row * groups).collect(),
            pixel_vectors,
        }
    }
}

/// The lengths of a task's buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    /// Rows of pixels, for each channel of an element.
    lines: usize,
    /// Transformed pixels.
    planes: usize,
    /// Widened weights.
    widened: usize,
    /// Transformed weights.
    panels: usize,
    /// Accumulated products.
    sums: usize,
    /// Pixels after the inverse transform.
    pixels: usize,
}

impl Buffers {
    pub(super) fn new<F: Form>(
        convolution: &Convolution<'_>,
        block: &Block,
        layout: &Layout,
        lanes: usize,
    ) -> Self {
        let sizes = &convolution.sizes;
        let (part, outputs) = (convolution.part(), block.channels.len());
        let groups = layout.pixel_vectors.len() * lanes;
        Self {
            lines: F::CHANNELS * 2 * LINES,
            planes: F::TERMS * (part * layout.plane + SLACK),
            widened: widened(part * F::CHANNELS * sizes.taps()),
            panels: F::TERMS * panels(outputs, part * sizes.kernel_height),
            sums: F::TERMS * outputs * groups,
            pixels: F::GROUP * groups / block.images.len(),
        }
    }

    fn lengths(self) -> [usize; 6] {
        [
            self.lines,
            self.planes,
            self.widened,
            self.panels,
            self.sums,
            self.pixels,
        ]
    }

    pub(super) fn total(self) -> usize {
        aligned_length(self.lengths())
    }
}

/// A block of pixels.
pub(super) struct Task<'a, F> {
    pub(super) convolution: &'a Convolution<'a>,
    pub(super) block: &'a Block,
    pub(super) layout: &'a Layout,
    pub(super) buffers: Buffers,
    pub(super) scratch: &'a mut [f32],
    pub(super) form: PhantomData<F>,
}

impl<F: Form> Kernel for Task<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            convolution,
            block,
            layout,
            ..
        } = self;
        let [lines, planes, widened, panels, sums, pixels] =
            split_aligned(self.scratch, self.buffers.lengths());
        let sizes = &convolution.sizes;
        let (part, outputs) = (convolution.part() * F::CHANNELS, block.channels.len());
        let plane_step = self.buffers.planes / F::TERMS;
        let panel_step = self.buffers.panels / F::TERMS;
        let sums_step = self.buffers.sums / F::TERMS;
        // The zero padding, which is not overwritten.
        lines.fill(0.0);
        for first in (0..sizes.in_channels).step_by(part) {
            let channels = first..(first + part).min(sizes.in_channels);
            let elements = channels.len().div_ceil(F::CHANNELS);
            fill::<S, F>(simd, convolution, block, layout, &channels, lines, planes);
            combine_weights::<S, F>(simd, convolution, block, &channels, widened, panels);
            for term in 0..F::TERMS {
                let part = Part {
                    taps: &layout.taps,
                    pixel_vectors: &layout.pixel_vectors,
                    planes: planes[term * plane_step..].as_ptr(),
                    plane_step: layout.plane,
                    channels: elements,
                    weights: panels[term * panel_step..].as_ptr(),
                    outputs,
                    sums: sums[term * sums_step..].as_mut_ptr(),
                    is_first: first == 0,
                    in_pairs: F::PAIRS,
                };
                // SAFETY: there are so many planes of this term, and values after them; panels of so many
                // outputs and elements; and a vector for each output channel and vector of pixels.
                unsafe { part.multiply(simd) };
            }
        }
        finish::<S, F>(simd, convolution, block, layout, sums, pixels);
    }
}

/// Copies and transforms the pixels of some channels.
///
/// Rows are copied with zero padding. If vectors continue with the next row there are no gaps between rows,
/// and the neighbours of each group are copied to a second buffer.
#[inline(always)]
fn fill<S: Simd, F: Form>(
    simd: S,
    convolution: &Convolution<'_>,
    block: &Block,
    layout: &Layout,
    channels: &Range<usize>,
    lines: &mut [f32],
    planes: &mut [f32],
) {
    let sizes = &convolution.sizes;
    let Layout { rows, groups, .. } = *layout;
    let (line, after) = if layout.are_joined {
        (F::GROUP * groups, LINES)
    } else {
        (F::GROUP * (groups + 1), F::GROUP)
    };
    let at_a_time = (LINES - F::GROUP * S::LANES) / line;
    let (of_channel, term_step) = (lines.len() / F::CHANNELS, planes.len() / F::TERMS);
    let elements = channels.len().div_ceil(F::CHANNELS);
    assert!(
        at_a_time > 0
            && of_channel >= 2 * LINES
            && elements * layout.plane + SLACK <= term_step
            && S::LANES <= SLACK,
        "the buffer of planes is too small. This is a bug."
    );
    // The pixels of a row of the block and those beside them, zero-padded.
    let before = sizes.columns_left.saturating_sub(block.columns.start);
    let from = block.columns.start.saturating_sub(sizes.columns_left);
    let inside = (sizes.width - from).min(block.columns.len() + COLUMNS - 1 - before);
    // Rows inside of the image.
    let inner = sizes.rows_above.saturating_sub(block.rows.start).min(rows);
    let inner = inner
        ..(sizes.height + sizes.rows_above)
            .saturating_sub(block.rows.start)
            .clamp(inner, rows);
    for element in 0..elements {
        let first = channels.start + element * F::CHANNELS;
        if first + F::CHANNELS > channels.end {
            // The last channel has no partner.
            lines[of_channel..].fill(0.0);
        }
        for (index, image) in block.images.clone().enumerate() {
            let to = element * layout.plane + index * rows * groups;
            for term in 0..F::TERMS {
                planes[term * term_step + to..][..inner.start * groups].fill(0.0);
            }
            for begin in inner.clone().step_by(at_a_time) {
                let count = at_a_time.min(inner.end - begin);
                let row = block.rows.start + begin - sizes.rows_above;
                for (channel, lines) in (first..channels.end).zip(lines.chunks_exact_mut(of_channel)) {
                    let source =
                        (image * sizes.in_channels + channel) * sizes.pixels() + row * sizes.width + from;
                    let source = &convolution.x[source..source + (count - 1) * sizes.width + inside];
                    if layout.are_joined {
                        let here = inside.min(line - before);
                        copy_rows(
                            simd,
                            (source, sizes.width),
                            (&mut lines[before..], line),
                            [count, here],
                        );
                        // The same, one group further.
                        let (skipped, before) = (
                            F::GROUP.saturating_sub(before).min(inside),
                            before.saturating_sub(F::GROUP),
                        );
                        let next = (inside - skipped).min(line - before);
                        copy_rows(
                            simd,
                            (&source[skipped..], sizes.width),
                            (&mut lines[after + before..], line),
                            [count, next],
                        );
                    } else {
                        let next = source.as_ptr().wrapping_add(F::CHANNELS * sizes.pixels());
                        fetch_rows(simd, (next, sizes.width), [count, inside]);
                        copy_rows(
                            simd,
                            (source, sizes.width),
                            (&mut lines[before..], line),
                            [count, inside],
                        );
                    }
                }
                let (runs, length) = if layout.are_joined {
                    (1, count * groups)
                } else {
                    (count, groups)
                };
                for run in 0..runs {
                    for group in (0..length).step_by(S::LANES) {
                        let at = run * line + F::GROUP * group;
                        // SAFETY: lines have so many groups, and space for a vector of them after these.
                        // Values behind the last one lie before what is written next, or in what was left
                        // after all planes.
                        unsafe {
                            let pixels = lines.as_ptr().add(at);
                            let combined = F::of_pixels(simd, pixels, pixels.add(after));
                            let to = planes.as_mut_ptr().add(to + (begin + run) * groups + group);
                            if F::PAIRS {
                                let pixels = pixels.add(of_channel);
                                let odd = F::of_pixels(simd, pixels, pixels.add(after));
                                for term in 0..F::TERMS {
                                    simd.store(
                                        to.add(term * term_step),
                                        simd.pair(combined[term], odd[term]),
                                    );
                                }
                            } else {
                                for term in 0..F::TERMS {
                                    simd.store(to.add(term * term_step), combined[term]);
                                }
                            }
                        }
                    }
                }
            }
            for term in 0..F::TERMS {
                planes[term * term_step + to..][inner.end * groups..rows * groups].fill(0.0);
            }
        }
    }
}

/// Transforms and packs the weights of some channels, the panels of each term after those of the one before.
#[inline(always)]
fn combine_weights<S: Simd, F: Form>(
    simd: S,
    convolution: &Convolution<'_>,
    block: &Block,
    channels: &Range<usize>,
    widened: &mut [f32],
    panels: &mut [f32],
) {
    let (rows, taps) = (convolution.sizes.kernel_height, convolution.sizes.taps());
    let elements = channels.len().div_ceil(F::CHANNELS);
    let term_step = panels.len() / F::TERMS;
    for output in (0..block.channels.len()).step_by(S::LANES) {
        let outputs = block.channels.start + output..block.channels.end;
        lay_floats(simd, convolution, outputs, channels, widened);
        let panel = output / PANEL * PANEL * elements * rows + output % PANEL;
        assert!(
            channels.len() * taps * S::LANES <= widened.len()
                && panel + ((elements * rows - 1) * PANEL + S::LANES) <= term_step,
            "the buffer of weights is too small. This is a bug."
        );
        for element in 0..elements {
            let first = element * F::CHANNELS;
            let has_odd = first + 1 < channels.len();
            for row in 0..rows {
                // SAFETY: as was asserted: each channel has a vector for each place, and each element and row
                // of the kernel a place in the panel.
                unsafe {
                    let from = widened.as_ptr().add((first * taps + row * COLUMNS) * S::LANES);
                    let to = panels.as_mut_ptr().add(panel + (element * rows + row) * PANEL);
                    let combined = F::of_weights(simd, of_row(simd, from));
                    if F::PAIRS {
                        let odd = if has_odd {
                            of_row(simd, from.add(taps * S::LANES))
                        } else {
                            [simd.zero(); COLUMNS]
                        };
                        let odd = F::of_weights(simd, odd);
                        for term in 0..F::TERMS {
                            simd.store(to.add(term * term_step), simd.pair(combined[term], odd[term]));
                        }
                    } else {
                        for term in 0..F::TERMS {
                            simd.store(to.add(term * term_step), combined[term]);
                        }
                    }
                }
            }
        }
    }
}

/// The weights of a row of the kernel.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn of_row<S: Simd>(simd: S, from: *const f32) -> [S::Vector; COLUMNS] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        [
            simd.load(from),
            simd.load(from.add(S::LANES)),
            simd.load(from.add(2 * S::LANES)),
        ]
    }
}

/// Applies the inverse transform to the sums and writes the pixels.
#[inline(always)]
fn finish<S: Simd, F: Form>(
    simd: S,
    convolution: &Convolution<'_>,
    block: &Block,
    layout: &Layout,
    sums: &[f32],
    pixels: &mut [f32],
) {
    let sizes = &convolution.sizes;
    let outputs = block.channels.len();
    let term_step = sums.len() / F::TERMS;
    let pixel_vectors = layout.pixel_vectors.len() / block.images.len();
    assert!(
        outputs * layout.pixel_vectors.len() * S::LANES <= term_step
            && pixel_vectors * F::GROUP * S::LANES <= pixels.len(),
        "sums are not as many as was thought. This is a bug."
    );
    // Whole rows are contiguous.
    let (columns, row) = (block.columns.len(), F::GROUP * layout.groups);
    let (runs, length) = if row == sizes.out_width {
        (1, block.rows.len() * row)
    } else {
        (block.rows.len(), columns)
    };
    for (index, output) in block.channels.clone().enumerate() {
        for (place, image) in block.images.clone().enumerate() {
            let bias = simd.splat(convolution.addends.bias(image, output, sizes.out_channels));
            for vector in 0..pixel_vectors {
                let from = ((index * block.images.len() + place) * pixel_vectors + vector) * S::LANES;
                // SAFETY: there is a vector for each output channel and vector of pixels, and space for its groups.
                unsafe {
                    let mut terms = [simd.zero(); form::MOST_TERMS];
                    for term in 0..F::TERMS {
                        terms[term] = simd.load(sums.as_ptr().add(term * term_step + from));
                    }
                    F::write(
                        simd,
                        terms,
                        bias,
                        pixels.as_mut_ptr().add(vector * F::GROUP * S::LANES),
                    );
                }
            }
            let first = (image * sizes.out_channels + output) * sizes.out_pixels()
                + block.rows.start * sizes.out_width
                + block.columns.start;
            for run in 0..runs {
                // SAFETY: the row lies inside of the result, which lives until all tasks are done, and no
                // other task has the same pixels of it.
                unsafe {
                    convolution.write(
                        simd,
                        &pixels[run * row..][..length],
                        first + run * sizes.out_width,
                    );
                }
            }
        }
    }
}
