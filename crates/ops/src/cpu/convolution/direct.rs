//! Direct convolutions: the products that define them.

use std::ops::Range;

use super::panel::{OVERHANG, PANEL, before_tiles, lay_panels, panels, widened};
use super::partition::{Block, COLUMN_STEP, Limits, PixelVector, WIDE, part, part_in_tiles};
use super::rows::{copy_pairs, copy_strided, fetch_rows};
use super::tile::{Finish, Part, SLACK};
use super::unit::lay_tiles;
use super::{Convolution, Sizes};
use crate::cpu::buffers::{aligned_length, split_aligned};
use crate::cpu::simd::tiles::{SIDE, TileUnit};
use crate::cpu::simd::{Kernel, Simd};

/// Size limits of tasks: their buffers fit a part of a cache of half a megabyte.
pub(super) const LIMITS: Limits = Limits {
    pixels: 384,
    group: 1,
    rows: 6,
    channels: 128,
    plane: 1024,
    plane_of: Layout::plane_of,
};

/// With a matrix unit: it is so fast that packing counts, so that weights are packed for more pixels.
pub(super) const LIMITS_OF_TILES: Limits = Limits {
    pixels: 1024,
    group: 1,
    rows: 16,
    channels: 128,
    plane: 3072,
    plane_of: Layout::plane_of,
};

/// An upper bound for the floats of a task.
pub(super) fn most(channels: usize, outputs: usize, taps: usize) -> usize {
    let part = part(channels, taps);
    let outputs = outputs.min(LIMITS.channels).next_multiple_of(PANEL);
    Buffers {
        planes: part * LIMITS.plane + SLACK,
        widened: widened(2 * part * taps),
        before_tiles: 0,
        panels: panels(outputs, part * taps) + OVERHANG,
        sums: outputs * LIMITS.pixels_of_vectors(),
    }
    .total()
}

/// The same on a matrix unit.
pub(super) fn most_in_tiles(channels: usize, outputs: usize, taps: usize) -> usize {
    let limits = LIMITS_OF_TILES;
    let part = part_in_tiles(channels.div_ceil(2), taps);
    let outputs = outputs.min(limits.channels).next_multiple_of(PANEL);
    let of_tiles = Buffers {
        planes: part * limits.plane + SLACK,
        widened: widened(2 * part * taps),
        before_tiles: before_tiles(part, taps),
        panels: panels(outputs, part * taps) + OVERHANG,
        sums: outputs * limits.pixels_of_vectors(),
    };
    of_tiles.total()
}

/// Consecutive values of a channel's plane, copied from a row of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Their offset in the plane.
    pub(super) to: usize,
    /// Number of values.
    pub(super) count: usize,
    /// Zeros before the values from the image.
    pub(super) before: usize,
    /// Number of values from the image. Zeros follow.
    pub(super) inside: usize,
    /// The image that they come from.
    pub(super) image: usize,
    /// The offset of the first in its channel; the others are a stride apart.
    pub(super) from: usize,
}

/// The layout of the pixels under the kernel in a plane, one for each input channel: consecutive output
/// pixels find theirs side by side for every tap.
///
/// There are two layouts. If vectors end with a row of pixels, input rows are copied once, zero-padded; a tap
/// is an offset from the first one. If rows are too short for that, they are copied for each column of the
/// kernel without gaps, so that a vector continues with the next row. In both, columns or rows that a stride
/// skips are stored apart.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) lines: Vec<Line>,
    /// The offset of each tap from the first one.
    pub(super) taps: Vec<usize>,
    pub(super) pixel_vectors: Vec<PixelVector>,
    /// Values of a plane.
    pub(super) plane: usize,
}

/// Whether rows of `columns` pixels are too short for vectors to end with them.
fn are_short(columns: usize) -> bool {
    columns < WIDE && columns.next_multiple_of(COLUMN_STEP) * 10 > columns * 11
}

impl Layout {
    /// Values of a plane for the given output pixels.
    fn plane_of(sizes: &Sizes, images: usize, rows: usize, columns: usize) -> usize {
        let stride = sizes.stride;
        if are_short(columns) {
            let rows = rows + (sizes.kernel_height - 1) / stride;
            return images * sizes.kernel_width * stride.min(sizes.kernel_height) * rows * columns;
        }
        let rows = (rows - 1) * stride + sizes.kernel_height;
        let line = columns + (sizes.kernel_width - 1) / stride;
        images * rows * stride.min(sizes.kernel_width) * line
    }

    /// The layout for a block, of whole rows if they are short, and vectors of `lanes` lanes.
    pub(super) fn new(sizes: &Sizes, block: &Block, lanes: usize) -> Self {
        let columns = block.columns.len();
        let layout = if are_short(columns) && columns == sizes.out_width {
            Self::of_short_rows(sizes, block, lanes)
        } else {
            Self::of_rows(sizes, block, lanes)
        };
        // Whole vectors are loaded, with values after the plane at the end of a row.
        let furthest = layout.taps.iter().max().copied().unwrap_or(0);
        let is_inside = |vector: &PixelVector| vector.offset + furthest < layout.plane;
        assert!(
            layout.pixel_vectors.iter().all(is_inside),
            "pixels outside of their plane. This is a bug."
        );
        layout
    }

    fn of_rows(sizes: &Sizes, block: &Block, lanes: usize) -> Self {
        let Sizes {
            stride,
            kernel_height,
            kernel_width,
            ..
        } = *sizes;
        let columns = block.columns.len();
        let rows = (block.rows.len() - 1) * stride + kernel_height;
        // With a wide stride some columns are under no tap.
        let phases = stride.min(kernel_width);
        let count = columns + (kernel_width - 1) / stride;
        let row_step = phases * count;
        let first = (block.rows.start * stride, block.columns.start * stride);
        let mut lines = Vec::new();
        for image in 0..block.images.len() {
            for row in 0..rows {
                for phase in 0..phases {
                    let to = ((image * rows + row) * phases + phase) * count;
                    let image = block.images.start + image;
                    lines.push(Line::new(
                        sizes,
                        image,
                        (first.0 + row, first.1 + phase),
                        to,
                        count,
                    ));
                }
            }
        }
        let tap = |row: usize, column: usize| row * row_step + column % stride * count + column / stride;
        let mut pixel_vectors = Vec::new();
        for image in 0..block.images.len() {
            for row in 0..block.rows.len() {
                for column in (0..columns).step_by(lanes) {
                    pixel_vectors.push(PixelVector {
                        offset: (image * rows + row * stride) * row_step + column,
                        image: block.images.start + image,
                        to: (block.rows.start + row) * sizes.out_width + block.columns.start + column,
                        count: lanes.min(columns - column),
                    });
                }
            }
        }
        Self {
            lines,
            taps: tap_offsets(sizes, tap),
            pixel_vectors,
            plane: block.images.len() * rows * row_step,
        }
    }

    fn of_short_rows(sizes: &Sizes, block: &Block, lanes: usize) -> Self {
        let Sizes {
            stride,
            kernel_height,
            kernel_width,
            out_width: columns,
            ..
        } = *sizes;
        let phases = stride.min(kernel_height);
        let rows = block.rows.len() + (kernel_height - 1) / stride;
        let (images, size) = (block.images.len(), rows * columns);
        let mut lines = Vec::new();
        for column in 0..kernel_width {
            for phase in 0..phases {
                for image in 0..images {
                    for row in 0..rows {
                        let to = ((column * phases + phase) * images + image) * size + row * columns;
                        let image = block.images.start + image;
                        let first = (block.rows.start + row) * stride + phase;
                        lines.push(Line::new(sizes, image, (first, column), to, columns));
                    }
                }
            }
        }
        let tap = |row: usize, column: usize| {
            (column * phases + row % stride) * images * size + row / stride * columns
        };
        let pixels = block.rows.len() * columns;
        let mut pixel_vectors = Vec::new();
        for image in 0..images {
            for pixel in (0..pixels).step_by(lanes) {
                pixel_vectors.push(PixelVector {
                    offset: image * size + pixel,
                    image: block.images.start + image,
                    to: block.rows.start * columns + pixel,
                    count: lanes.min(pixels - pixel),
                });
            }
        }
        Self {
            lines,
            taps: tap_offsets(sizes, tap),
            pixel_vectors,
            plane: kernel_width * phases * images * size,
        }
    }
}

/// The offset that `tap` gives for the row and column of each tap.
fn tap_offsets(sizes: &Sizes, tap: impl Fn(usize, usize) -> usize) -> Vec<usize> {
    let columns = sizes.kernel_width;
    (0..sizes.kernel_height * columns)
        .map(|index| tap(index / columns, index % columns))
        .collect()
}

impl Line {
    /// `count` values from the row and column `first` on, a stride apart, both counted in the padded image.
    fn new(sizes: &Sizes, image: usize, first: (usize, usize), to: usize, count: usize) -> Self {
        let Sizes {
            stride,
            width,
            height,
            rows_above,
            columns_left,
            ..
        } = *sizes;
        let (row, column) = first;
        let before = columns_left.saturating_sub(column).div_ceil(stride).min(count);
        let end = (width + columns_left)
            .saturating_sub(column)
            .div_ceil(stride)
            .min(count);
        let is_outside = row < rows_above || row >= height + rows_above || end <= before;
        let (before, inside, from) = if is_outside {
            (count, 0, 0)
        } else {
            let from = (row - rows_above) * width + column + before * stride - columns_left;
            (before, end - before, from)
        };
        Self {
            to,
            count,
            before,
            inside,
            image,
            from,
        }
    }
}

/// The lengths of a task's buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    planes: usize,
    /// Weights widened on the way to pairs.
    widened: usize,
    /// A panel of pairs on the way to tiles.
    before_tiles: usize,
    panels: usize,
    sums: usize,
}

impl Buffers {
    pub(super) fn new(convolution: &Convolution<'_>, block: &Block, layout: &Layout, lanes: usize) -> Self {
        let (part, taps) = (convolution.part(), convolution.sizes.taps());
        let outputs = block.channels.len();
        Self {
            planes: part * layout.plane + SLACK,
            widened: if convolution.in_pairs && taps > 1 {
                widened(2 * part * taps)
            } else {
                0
            },
            before_tiles: if convolution.in_tiles {
                before_tiles(part, taps)
            } else {
                0
            },
            panels: panels(outputs, part * taps) + OVERHANG,
            // Tiles have whole panels of outputs.
            sums: outputs.next_multiple_of(PANEL) * layout.pixel_vectors.len() * lanes,
        }
    }

    fn lengths(self) -> [usize; 5] {
        [
            self.planes,
            self.widened,
            self.before_tiles,
            self.panels,
            self.sums,
        ]
    }

    pub(super) fn total(self) -> usize {
        aligned_length(self.lengths())
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
            ..
        } = self;
        let [planes, widened, before_tiles, panels, sums] =
            split_aligned(self.scratch, self.buffers.lengths());
        let _unit = convolution.in_tiles.then(|| TileUnit::new(simd));
        let part = convolution.part() * convolution.pair();
        let in_channels = convolution.sizes.in_channels;
        for first in (0..in_channels).step_by(part) {
            let channels = first..(first + part).min(in_channels);
            convolution.fill(simd, layout, &channels, planes);
            if convolution.in_tiles {
                let first_empty = channels.len().div_ceil(2);
                let empty = first_empty..first_empty.next_multiple_of(SIDE);
                planes[empty.start * layout.plane..empty.end * layout.plane].fill(0.0);
                lay_tiles(
                    simd,
                    convolution,
                    &block.channels,
                    &channels,
                    [widened, before_tiles],
                    panels,
                );
            } else {
                lay_panels(simd, convolution, &block.channels, &channels, widened, panels);
            }
            let part = Part {
                taps: &layout.taps,
                pixel_vectors: &layout.pixel_vectors,
                planes: planes.as_ptr(),
                plane_step: layout.plane,
                channels: channels.len().div_ceil(convolution.pair()),
                weights: panels.as_ptr(),
                outputs: block.channels.len(),
                sums: sums.as_mut_ptr(),
                is_first: first == 0,
                in_pairs: convolution.in_pairs,
            };
            // SAFETY: there are as many planes as elements, with values after them; panels of so many outputs
            // and elements; and a vector for each channel and vector of pixels.
            unsafe { part.multiply(simd) };
        }
        convolution.finish(simd, block, layout, sums);
    }
}

impl Convolution<'_> {
    /// Copies some channels into their planes.
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, layout: &Layout, channels: &Range<usize>, planes: &mut [f32]) {
        let (pixels, stride) = (self.sizes.pixels(), self.sizes.stride);
        let planes = planes.chunks_exact_mut(layout.plane);
        for (channel, plane) in channels.clone().step_by(self.pair()).zip(planes) {
            for line in &layout.lines {
                let to = &mut plane[line.to..line.to + line.count];
                to[..line.before].fill(0.0);
                to[line.before + line.inside..].fill(0.0);
                let to = &mut to[line.before..line.before + line.inside];
                if to.is_empty() {
                    continue;
                }
                let length = (line.inside - 1) * stride + 1;
                let first = (line.image * self.sizes.in_channels + channel) * pixels + line.from;
                let from = &self.x[first..first + length];
                let next = from.as_ptr().wrapping_add(self.pair() * pixels);
                fetch_rows(simd, (next, 0), [1, length]);
                if !self.in_pairs {
                    copy_strided(simd, from, stride, to);
                } else if channel + 1 < channels.end {
                    copy_pairs(simd, from, &self.x[first + pixels..][..length], stride, to);
                } else {
                    copy_pairs(simd, from, &[], stride, to);
                }
            }
        }
    }

    /// Adds the addends to the sums and writes them.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, block: &Block, layout: &Layout, sums: &[f32]) {
        let out_pixels = self.sizes.out_pixels();
        let rows = sums.chunks_exact(layout.pixel_vectors.len() * S::LANES);
        for (output, sums) in block.channels.clone().zip(rows) {
            for (vector, sums) in layout.pixel_vectors.iter().zip(sums.chunks_exact(S::LANES)) {
                let first = (vector.image * self.sizes.out_channels + output) * out_pixels;
                let finish = Finish {
                    bias: self.addends.bias(vector.image, output, self.sizes.out_channels),
                    onto: self.addends.onto.map(|onto| &onto[first..first + out_pixels]),
                };
                // SAFETY: the channel lies inside of the result, which lives until all tasks are done, and no
                // other task has the same pixels of it.
                unsafe { finish.write(simd, sums.as_ptr(), vector, self.result.0.add(first)) };
            }
        }
    }
}
