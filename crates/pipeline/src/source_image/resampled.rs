//! Resamples rows as they are decoded to an upright image of another size, without holding the decoded image.

use super::orientation::Orientation;
use super::rows::{Row, Rows};
use crate::image_size::ImageSize;
use crate::save::RgbImage;
use crate::upscale::{Window, along_rows, byte, windows};

/// An image in progress that is resampled as by [`lanczos3`](crate::upscale::lanczos3): first along the rows
/// of the upright image, with bytes in between.
#[derive(Debug)]
pub(super) struct Resampled {
    orientation: Orientation,
    size: ImageSize,
    /// The windows along stored rows, if their length changes.
    across: Option<Vec<Window>>,
    down: Down,
    /// A flipped row.
    backwards: Vec<u8>,
    pixels: Vec<u8>,
}

/// Sums over stored rows, for a few lines of the result at a time. They are integers, so rows may come from
/// either end.
#[derive(Debug)]
struct Down {
    rows: usize,
    /// None if the number of rows stays the same.
    windows: Option<Vec<Window>>,
    /// The line `index` is at `index % sums.len()`.
    sums: Vec<Line>,
    line: Vec<u8>,
}

/// A line of the result that some rows are still missing from.
#[derive(Debug, Clone)]
struct Line {
    to_come: usize,
    sums: Vec<i32>,
}

/// The stored sides, and their new size before the transposition.
fn sides(orientation: Orientation, size: ImageSize) -> (usize, usize) {
    orientation.upright((size.width(), size.height()))
}

impl Resampled {
    /// An image with `stored` sides that becomes an upright one of `size`.
    pub(super) fn new(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> Self {
        let (width, height) = sides(orientation, size);
        // The length of a row when columns are summed.
        let pixels = if orientation.transposed { stored.0 } else { width };
        Self {
            orientation,
            size,
            across: (stored.0 != width).then(|| windows(stored.0, width)),
            down: Down::new(stored.1, height, 3 * pixels),
            backwards: Vec::new(),
            pixels: vec![0; 3 * size.width() * size.height()],
        }
    }

    /// Bytes of this beside the result.
    pub(super) fn bytes(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> u64 {
        let (width, height) = sides(orientation, size);
        let of_windows = |old: usize, new: usize| 64 * new + 12 * (6 * old.max(new) + 3 * new);
        let longest = stored.0.max(stored.1).max(width).max(height);
        let lines = 6 * height.div_ceil(stored.1) + 3;
        let line = 3 * if orientation.transposed { stored.0 } else { width };
        (of_windows(stored.0, width) + of_windows(stored.1, height) + lines * 4 * line + 4 * 3 * longest)
            as u64
    }

    /// The upright image.
    pub(super) fn finish(self) -> RgbImage {
        RgbImage::new(self.size.width(), self.size.height(), self.pixels)
    }
}

impl Rows for Resampled {
    fn take(&mut self, index: usize, row: &Row) {
        let orientation = self.orientation;
        let index = if orientation.upside_down {
            self.down.rows - 1 - index
        } else {
            index
        };
        let mut row = row.colours();
        if orientation.mirrored {
            self.backwards.clear();
            self.backwards
                .extend(row.as_chunks::<3>().0.iter().rev().flatten());
            row = &self.backwards;
        }
        let across = |row: &[u8]| -> Option<Vec<u8>> {
            let windows = self.across.as_ref()?;
            Some(along_rows(row, row.len() / 3, windows))
        };
        let pixels = &mut self.pixels;
        let width = self.size.width();
        if orientation.transposed {
            // A transposed image is summed over stored rows first.
            self.down.add(index, row, |x, line| {
                let resampled = across(line);
                let line = resampled.as_deref().unwrap_or(line);
                for (y, colour) in line.as_chunks::<3>().0.iter().enumerate() {
                    pixels[3 * (y * width + x)..][..3].copy_from_slice(colour);
                }
            });
        } else {
            let resampled = across(row);
            let row = resampled.as_deref().unwrap_or(row);
            self.down.add(index, row, |y, line| {
                pixels[3 * y * width..][..line.len()].copy_from_slice(line);
            });
        }
    }
}

impl Down {
    /// Resamples `rows` to `lines` of `length` bytes.
    fn new(rows: usize, lines: usize, length: usize) -> Self {
        let windows = (rows != lines).then(|| windows(rows, lines));
        let at_a_time = windows.as_ref().map_or(0, |windows| {
            let open = |(index, window): (usize, &Window)| {
                windows.partition_point(|other| other.first < window.end()) - index
            };
            windows.iter().enumerate().map(open).max().unwrap_or_default()
        });
        let line = Line {
            to_come: 0,
            sums: vec![0; length],
        };
        Self {
            rows,
            windows,
            sums: vec![line; at_a_time],
            line: vec![0; length],
        }
    }

    /// Adds a row to its lines, and passes on those that it completes.
    fn add(&mut self, index: usize, row: &[u8], mut finished: impl FnMut(usize, &[u8])) {
        let Some(windows) = &self.windows else {
            finished(index, row);
            return;
        };
        let first = windows.partition_point(|window| window.end() <= index);
        let end = windows.partition_point(|window| window.first <= index);
        let at_a_time = self.sums.len();
        for (line, window) in windows.iter().enumerate().take(end).skip(first) {
            let Line { to_come, sums } = &mut self.sums[line % at_a_time];
            if *to_come == 0 {
                *to_come = window.weights.len();
                sums.fill(0);
            }
            let weight = window.weights[index - window.first];
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(value)));
            }
            *to_come -= 1;
            if *to_come == 0 {
                for (value, &sum) in self.line.iter_mut().zip(&*sums) {
                    *value = byte(sum);
                }
                finished(line, &self.line);
            }
        }
    }
}
