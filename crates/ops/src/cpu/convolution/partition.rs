//! Partition of a convolution into tasks, by shapes alone.

use std::ops::Range;

use super::Sizes;
use super::panel::PANEL;
use crate::cpu::simd::tiles::SIDE;

/// Rows with more pixels are split too.
pub(super) const WIDE: usize = 64;
/// Columns of a split row are a multiple of this, the lanes of the widest vectors.
pub(super) const COLUMN_STEP: usize = 16;
/// The fewest output channels of a task in a finer partition.
const LEAST_CHANNELS: usize = 32;
/// Output channels of a task are a multiple of this.
const CHANNEL_STEP: usize = PANEL;
/// Tasks that are enough for many threads.
const TASKS: usize = 20;
/// Products of a part, accumulated at a time.
const PART: usize = 288;
/// The most input channels of a part.
const PART_CHANNELS: usize = 128;

/// Size limits of the tasks of an algorithm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pixels of a task, over all its images.
    pub(super) pixels: usize,
    /// Neighbouring pixels of a row that are computed together: rows are counted in whole groups.
    pub(super) group: usize,
    /// Rows of a task with a part of the rows.
    pub(super) rows: usize,
    /// Output channels of a task.
    pub(super) channels: usize,
    /// The most values of a channel that a task copies, unless a few columns of a row need more.
    pub(super) plane: usize,
    /// Values of a channel that are copied for the given images, rows and columns.
    pub(super) plane_of: fn(&Sizes, usize, usize, usize) -> usize,
}

impl Limits {
    /// An upper bound for the pixels of a task's vectors, of which some end with a row.
    pub(super) fn pixels_of_vectors(self) -> usize {
        self.pixels + self.rows * COLUMN_STEP
    }
}

/// Input channels of a part, for a kernel of `taps` taps. It depends on the weight alone, so that all pixels
/// accumulate in the same parts.
pub(super) fn part(channels: usize, taps: usize) -> usize {
    in_parts(channels, (PART / taps.max(1)).clamp(1, PART_CHANNELS))
}

/// Elements of a part in whole tiles: pairs of channels.
pub(super) fn part_in_tiles(elements: usize, taps: usize) -> usize {
    let most = (PART / taps.max(1)).clamp(SIDE, PART_CHANNELS);
    SIDE * in_parts(elements.div_ceil(SIDE), most / SIDE)
}

/// The size of equal parts of `channels` channels, of at most `most`.
pub(super) fn in_parts(channels: usize, most: usize) -> usize {
    channels.div_ceil(channels.div_ceil(most).max(1)).max(1)
}

/// The images, rows, columns and output channels of a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition {
    images: usize,
    rows: usize,
    columns: usize,
    channels: usize,
}

/// The output of a task: a block of some images and some channels.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) channels: Range<usize>,
}

/// The size of equal pieces of `whole`: at most `most` and, except for the last, a multiple of `step`.
fn piece(whole: usize, most: usize, step: usize) -> usize {
    let pieces = whole.div_ceil(most.max(1)).max(1);
    whole.div_ceil(pieces).next_multiple_of(step).max(1)
}

fn range(index: usize, piece: usize, whole: usize) -> Range<usize> {
    index * piece..((index + 1) * piece).min(whole)
}

impl Partition {
    pub(super) fn new(batch: usize, sizes: &Sizes, limits: &Limits) -> Self {
        let Sizes {
            out_height: height,
            out_width: width,
            ..
        } = *sizes;
        let mut columns = width;
        if width > WIDE {
            let mut most = limits.pixels / height.clamp(1, limits.rows);
            while most > COLUMN_STEP && (limits.plane_of)(sizes, 1, 1, most) > limits.plane {
                most -= COLUMN_STEP;
            }
            columns = piece(width, most, COLUMN_STEP);
        }
        let mut most = (limits.pixels / columns.max(1).next_multiple_of(limits.group)).max(1);
        while most > 1 && (limits.plane_of)(sizes, 1, most, columns) > limits.plane {
            most -= 1;
        }
        let rows = piece(height, most, 1);
        let images = if rows == height && columns == width {
            let plane = (limits.plane_of)(sizes, 1, rows, columns);
            // Vectors end with an image.
            let groups = (rows * columns.div_ceil(limits.group)).next_multiple_of(COLUMN_STEP);
            let pixels = groups * limits.group;
            let most = (limits.pixels / pixels.max(1)).min(limits.plane / plane.max(1));
            piece(batch, most, 1)
        } else {
            1
        };
        let blocks = batch.div_ceil(images) * height.div_ceil(rows) * width.div_ceil(columns.max(1));
        let mut most = limits.channels;
        while most > LEAST_CHANNELS && blocks * sizes.out_channels.div_ceil(most) < TASKS {
            most /= 2;
        }
        Self {
            images,
            rows,
            columns,
            channels: piece(sizes.out_channels, most, CHANNEL_STEP),
        }
    }

    /// The number of pieces of images, rows, columns and channels.
    fn pieces(self, batch: usize, sizes: &Sizes) -> [usize; 4] {
        [
            batch.div_ceil(self.images),
            sizes.out_height.div_ceil(self.rows),
            sizes.out_width.div_ceil(self.columns.max(1)),
            sizes.out_channels.div_ceil(self.channels),
        ]
    }

    /// Tasks for the same output channels.
    pub(super) fn pixel_blocks(self, batch: usize, sizes: &Sizes) -> usize {
        let [images, rows, columns, _] = self.pieces(batch, sizes);
        images * rows * columns
    }

    pub(super) fn tasks(self, batch: usize, sizes: &Sizes) -> usize {
        self.pieces(batch, sizes).iter().product()
    }

    /// The block of task `index`. Tasks of the same channels are consecutive.
    pub(super) fn block(self, index: usize, batch: usize, sizes: &Sizes) -> Block {
        let [images, rows, columns, _] = self.pieces(batch, sizes);
        let (image, index) = (index % images, index / images);
        let (column, index) = (index % columns, index / columns);
        let (row, channel) = (index % rows, index / rows);
        Block {
            images: range(image, self.images, batch),
            rows: range(row, self.rows, sizes.out_height),
            columns: range(column, self.columns, sizes.out_width),
            channels: range(channel, self.channels, sizes.out_channels),
        }
    }
}

/// A vector of output pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PixelVector {
    /// The offset in a plane of the values under the kernel's first tap.
    pub(super) offset: usize,
    /// The image of the pixels.
    pub(super) image: usize,
    /// Their offset in an output channel.
    pub(super) to: usize,
    /// Number of pixels. The lanes after these are unused.
    pub(super) count: usize,
}
