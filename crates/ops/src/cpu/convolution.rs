//! Convolutions on the processor.
//!
//! The windows of a tile of pixels are laid out as the columns of a matrix, small enough for the cache, which
//! the weight is multiplied by. Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks
//! for Document Processing", 2006.

use rayon::prelude::*;

use super::kernel::Values;
use super::product::{Matrix, Target, multiply_in_parts, with_many_floats};
use super::scratch::with_scratch;
use super::vector::add_in_place;

/// Floats of windows that a task lays out, where that many pixels are enough to multiply well.
const WINDOW_VALUES: usize = 1 << 17;
/// The fewest pixels of a tile, unless the picture has fewer.
const LEAST_PIXELS: usize = 192;
/// Pixels in a tile are a multiple of this, which products are made in steps of.
const PIXEL_STEP: usize = 48;
/// Floats of a weight that is widened at a time: 16 MB.
const PANEL_VALUES: usize = 1 << 22;
/// Output channels in a panel of the weight are a multiple of this.
const CHANNEL_STEP: usize = 64;

/// The sizes of a convolution of one picture, or of a band of rows of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) in_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_channels: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) stride: usize,
    /// Rows of zeros above the picture. What lies outside of it to the right and below is zero too.
    pub(crate) rows_above: usize,
    /// Columns of zeros to its left.
    pub(crate) columns_left: usize,
}

impl Sizes {
    /// Values in a window.
    fn window(&self) -> usize {
        self.in_channels * self.kernel_height * self.kernel_width
    }

    /// Pixels of a channel that goes in.
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of a channel that comes out.
    fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Whether a window is a single pixel, so that the picture is its own matrix of windows.
    fn is_pointwise(&self) -> bool {
        let padding = self.rows_above + self.columns_left;
        let alone = self.kernel_height == 1 && self.kernel_width == 1 && self.stride == 1 && padding == 0;
        // A single pixel would be a matrix whose rows lie side by side: see `multiply_in_parts`.
        alone && self.pixels() == self.out_pixels() && self.pixels() > 1
    }
}

/// Pixels whose windows, of `window` values each, a task lays out.
pub(crate) fn tile(window: usize) -> usize {
    (WINDOW_VALUES / window / PIXEL_STEP * PIXEL_STEP).max(LEAST_PIXELS)
}

/// Output channels whose weights are widened at a time.
pub(crate) fn panel(window: usize) -> usize {
    (PANEL_VALUES / window / CHANNEL_STEP * CHANNEL_STEP).max(CHANNEL_STEP)
}

/// The convolution of the pictures in `x`, added to the values of `onto` where there are such.
///
/// The value of a pixel depends on its window alone, not on what else is computed with it.
pub(crate) fn conv2d(
    x: &[f32],
    weight: Values<'_>,
    bias: Option<&[f32]>,
    onto: Option<&[f32]>,
    sizes: Sizes,
) -> Vec<f32> {
    let (window, out_pixels) = (sizes.window(), sizes.out_pixels());
    let picture = (sizes.in_channels * sizes.pixels()).max(1);
    let batch = x.len() / picture;
    let mut result = vec![0.0; batch * sizes.out_channels * out_pixels];
    let target = Target::new(&mut result, out_pixels);
    let tile = tile(window);
    let tiles = out_pixels.div_ceil(tile);
    let panel = panel(window);
    for first_channel in (0..sizes.out_channels).step_by(panel) {
        let channels = panel.min(sizes.out_channels - first_channel);
        let range = first_channel * window..(first_channel + channels) * window;
        with_many_floats(weight, range, |weight| {
            let left = Matrix::row_major(weight, channels, window);
            (0..batch * tiles).into_par_iter().for_each(|task| {
                let (index, first) = (task / tiles, task % tiles * tile);
                let count = tile.min(out_pixels - first);
                let x = &x[index * picture..(index + 1) * picture];
                let place = (index * sizes.out_channels + first_channel) * out_pixels + first;
                let target = target.at(place);
                let finish = |windows: Matrix<'_>| {
                    // SAFETY: `result` lives until the end, and the pixels of this task are no other's.
                    unsafe {
                        if let Some(bias) = bias {
                            target.fill(channels, count, |channel, row| {
                                row.fill(bias[first_channel + channel])
                            });
                        }
                        multiply_in_parts(target, left, windows, bias.is_some());
                        if let Some(onto) = onto {
                            target.fill(channels, count, |channel, row| {
                                let first = place + channel * out_pixels;
                                add_in_place(row, &onto[first..first + count]);
                            });
                        }
                    }
                };
                if sizes.is_pointwise() {
                    let row_step = sizes.pixels();
                    finish(Matrix {
                        values: &x[first..],
                        rows: window,
                        columns: count,
                        row_step,
                        column_step: 1,
                    });
                } else {
                    let row_step = count.max(2);
                    with_scratch(window * row_step, |scratch| {
                        lay_out(x, first, count, &sizes, scratch);
                        finish(Matrix {
                            values: scratch,
                            rows: window,
                            columns: count,
                            row_step,
                            column_step: 1,
                        });
                    });
                }
            });
        });
    }
    result
}

/// Writes the windows of the `count` pixels from `first` on as the columns of `windows`, whose rows are at least
/// 2 values: a row for each channel and place in the kernel.
fn lay_out(x: &[f32], first: usize, count: usize, sizes: &Sizes, windows: &mut [f32]) {
    let mut rows = windows.chunks_exact_mut(count.max(2));
    for channel in x.chunks_exact(sizes.pixels()) {
        for kernel_row in 0..sizes.kernel_height {
            for kernel_column in 0..sizes.kernel_width {
                if let Some(row) = rows.next() {
                    lay_out_row(
                        channel,
                        first,
                        kernel_row,
                        kernel_column,
                        sizes,
                        &mut row[..count],
                    );
                }
            }
        }
    }
}

/// Writes the values at one place of the kernel for consecutive pixels, of which the first is `first`.
pub(super) fn lay_out_row(
    channel: &[f32],
    first: usize,
    kernel_row: usize,
    kernel_column: usize,
    sizes: &Sizes,
    row: &mut [f32],
) {
    let Sizes {
        stride,
        rows_above,
        columns_left,
        width,
        height,
        out_width,
        ..
    } = *sizes;
    // The columns of the output whose place in the kernel lies inside of the picture.
    let inside_from = columns_left.saturating_sub(kernel_column).div_ceil(stride);
    let inside_to = (width + columns_left)
        .saturating_sub(kernel_column)
        .div_ceil(stride);
    let (mut out_row, mut from) = (first / out_width, first % out_width);
    let mut rest = row;
    while !rest.is_empty() {
        let to = out_width.min(from + rest.len());
        let (segment, after) = rest.split_at_mut(to - from);
        let y = out_row * stride + kernel_row;
        if y < rows_above || y >= height + rows_above {
            segment.fill(0.0);
        } else {
            let source = &channel[(y - rows_above) * width..(y - rows_above + 1) * width];
            let start = inside_from.clamp(from, to);
            let end = inside_to.clamp(start, to);
            segment[..start - from].fill(0.0);
            segment[end - from..].fill(0.0);
            let inside = &mut segment[start - from..end - from];
            if !inside.is_empty() {
                let source = &source[start * stride + kernel_column - columns_left..];
                if stride == 1 {
                    inside.copy_from_slice(&source[..inside.len()]);
                } else {
                    for (to, &value) in inside.iter_mut().zip(source.iter().step_by(stride)) {
                        *to = value;
                    }
                }
            }
        }
        rest = after;
        out_row += 1;
        from = 0;
    }
}
