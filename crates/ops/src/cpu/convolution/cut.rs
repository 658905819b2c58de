//! How a convolution is cut into tasks: decided by shapes alone.

use std::ops::Range;

use super::Sizes;
use super::panel::PANEL;

/// Pixels of a row beyond which it is cut too.
pub(super) const WIDE: usize = 64;
/// Columns of a row that is cut are a multiple of this, as many as the widest vectors have lanes.
pub(super) const COLUMN_STEP: usize = 16;
/// The fewest output channels of a task, where more tasks are wanted.
const LEAST_CHANNELS: usize = 32;
/// Output channels of a task are a multiple of this.
const CHANNEL_STEP: usize = PANEL;
/// Tasks that are enough for many threads.
const TASKS: usize = 20;
/// Products that are summed at a time.
const PART: usize = 288;
/// Input channels whose products are summed at a time, at most.
const PART_CHANNELS: usize = 128;

/// How large tasks of a kind are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pixels of a task, over all its pictures.
    pub(super) pixels: usize,
    /// Neighbours in a row that are made together: a row is counted as whole groups of them.
    pub(super) group: usize,
    /// Rows of a task that takes a part of rows.
    pub(super) rows: usize,
    /// Output channels of a task.
    pub(super) channels: usize,
    /// The most values of a channel that a task lays out, unless a few columns of a row need more.
    pub(super) plane: usize,
    /// How many values of a channel are laid out for so many pictures, rows and columns.
    pub(super) plane_of: fn(&Sizes, usize, usize, usize) -> usize,
}

impl Limits {
    /// Pixels of the vectors that a task makes, at most, where some end with a row.
    pub(super) fn pixels_of_vectors(self) -> usize {
        self.pixels + self.rows * COLUMN_STEP
    }
}

/// Input channels whose products are summed at a time, `places` of each. It depends on the weight alone, so that a
/// pixel's sum is taken in the same parts wherever the pixel lies.
pub(super) fn part(channels: usize, places: usize) -> usize {
    in_parts(channels, (PART / places.max(1)).clamp(1, PART_CHANNELS))
}

/// The size of equal parts of so many channels, of at most `most`.
pub(super) fn in_parts(channels: usize, most: usize) -> usize {
    channels.div_ceil(channels.div_ceil(most).max(1)).max(1)
}

/// How many pictures, rows, columns and output channels a task takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pictures: usize,
    rows: usize,
    columns: usize,
    channels: usize,
}

/// What a task makes: a piece of some of the pictures that come out, and some of their channels.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) pictures: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) channels: Range<usize>,
}

/// Equal pieces of `whole`, of at most `most` and, but for the last, of a multiple of `step`.
fn piece(whole: usize, most: usize, step: usize) -> usize {
    let pieces = whole.div_ceil(most.max(1)).max(1);
    whole.div_ceil(pieces).next_multiple_of(step).max(1)
}

fn range(index: usize, piece: usize, whole: usize) -> Range<usize> {
    index * piece..((index + 1) * piece).min(whole)
}

impl Cut {
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
        let pictures = if rows == height && columns == width {
            let plane = (limits.plane_of)(sizes, 1, rows, columns);
            // Vectors end with a picture.
            let groups = (rows * columns.div_ceil(limits.group)).next_multiple_of(COLUMN_STEP);
            let pixels = groups * limits.group;
            let most = (limits.pixels / pixels.max(1)).min(limits.plane / plane.max(1));
            piece(batch, most, 1)
        } else {
            1
        };
        let blocks = batch.div_ceil(pictures) * height.div_ceil(rows) * width.div_ceil(columns.max(1));
        let mut most = limits.channels;
        while most > LEAST_CHANNELS && blocks * sizes.out_channels.div_ceil(most) < TASKS {
            most /= 2;
        }
        Self {
            pictures,
            rows,
            columns,
            channels: piece(sizes.out_channels, most, CHANNEL_STEP),
        }
    }

    /// How many pieces there are of pictures, rows, columns and channels.
    fn pieces(self, batch: usize, sizes: &Sizes) -> [usize; 4] {
        [
            batch.div_ceil(self.pictures),
            sizes.out_height.div_ceil(self.rows),
            sizes.out_width.div_ceil(self.columns.max(1)),
            sizes.out_channels.div_ceil(self.channels),
        ]
    }

    pub(super) fn tasks(self, batch: usize, sizes: &Sizes) -> usize {
        self.pieces(batch, sizes).iter().product()
    }

    /// What the task `index` makes. Those of the same channels follow each other.
    pub(super) fn block(self, index: usize, batch: usize, sizes: &Sizes) -> Block {
        let [pictures, rows, columns, _] = self.pieces(batch, sizes);
        let (picture, index) = (index % pictures, index / pictures);
        let (column, index) = (index % columns, index / columns);
        let (row, channel) = (index % rows, index / rows);
        Block {
            pictures: range(picture, self.pictures, batch),
            rows: range(row, self.rows, sizes.out_height),
            columns: range(column, self.columns, sizes.out_width),
            channels: range(channel, self.channels, sizes.out_channels),
        }
    }
}

/// A vector of pixels that come out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    /// Where the values under the first place of the kernel begin in a plane.
    pub(super) offset: usize,
    /// The picture of the pixels.
    pub(super) picture: usize,
    /// Where they begin in a channel that comes out.
    pub(super) to: usize,
    /// How many there are. The lanes after these have no meaning.
    pub(super) count: usize,
}
