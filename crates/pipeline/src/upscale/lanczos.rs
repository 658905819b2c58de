//! Lanczos resampling, byte-identical to Pillow's `Image.resize` with `LANCZOS`.
//!
//! Duchon, "Lanczos Filtering in One and Two Dimensions", 1979. Rows are resampled first, then columns, with
//! bytes in between.

use std::f64::consts::PI;

use crate::save::RgbImage;

/// Lobes of the filter on each side.
const LOBES: f64 = 3.0;
/// The fixed-point precision of weights.
const BITS: u32 = 22;

/// Resamples `image` to `width` by `height`, at least one pixel each.
///
/// # Panics
/// The new size or the image is empty. This is a bug.
pub fn lanczos3(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let (old_width, old_height) = (image.width(), image.height());
    assert!(
        width * height * old_width * old_height > 0,
        "an image of {old_width}x{old_height} cannot become one of {width}x{height}. This is a bug."
    );
    let rows = (width != old_width).then(|| {
        let windows = windows(old_width, width);
        along_rows(image.pixels(), old_width, &windows)
    });
    let pixels = if height == old_height {
        rows.unwrap_or_else(|| image.pixels().to_vec())
    } else {
        let rows = rows.as_deref().unwrap_or(image.pixels());
        along_columns(rows, 3 * width, &windows(old_height, height))
    };
    RgbImage::new(width, height, pixels)
}

/// The peak bytes of [`lanczos3`], with its input and output.
pub(crate) fn lanczos3_bytes(
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
) -> u64 {
    /// Bytes of a new row's or column's window and weights.
    const WINDOW: usize = size_of::<Window>() + 2 * LOBES as usize * (size_of::<f64>() + size_of::<i64>());
    let values = width * height + new_width * height + new_width * new_height;
    let stretched = |old: usize, new: usize| new + old.max(new);
    let windows = stretched(width, new_width).max(stretched(height, new_height)) * WINDOW;
    // A line of sums.
    let sums = 3 * new_width * size_of::<i64>();
    (3 * values + windows + sums) as u64
}

/// The input pixels of an output pixel, and their weights.
#[derive(Debug)]
pub(crate) struct Window {
    /// The first input pixel.
    pub(crate) first: usize,
    /// Fixed-point weights, in units of 2^-22.
    pub(crate) weights: Vec<i32>,
}

impl Window {
    /// One past the last input pixel.
    pub(crate) fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// The windows of all output pixels of a line. Their beginnings and ends are non-decreasing.
pub(crate) fn windows(old: usize, new: usize) -> Vec<Window> {
    let scale = old as f64 / new as f64;
    // Downscaling uses wider windows, so that every input pixel counts.
    let stretch = scale.max(1.0);
    let support = LOBES * stretch;
    (0..new)
        .map(|index| {
            let center = (index as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(old);
            let weights: Vec<f64> = (first..end)
                .map(|pixel| filter((pixel as f64 - center + 0.5) / stretch))
                .collect();
            let sum: f64 = weights.iter().sum();
            let whole = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
            Window {
                first,
                weights: weights.iter().map(whole).collect(),
            }
        })
        .collect()
}

fn filter(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if (-LOBES..LOBES).contains(&x) {
        sinc(x) * sinc(x / LOBES)
    } else {
        0.0
    }
}

/// Rounds and clamps a weighted sum to a byte.
pub(crate) fn byte(sum: i32) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Resamples rows of `width` pixels.
pub(crate) fn along_rows(pixels: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut result = Vec::with_capacity(pixels.len() / width * windows.len());
    for row in pixels.chunks_exact(3 * width) {
        for Window { first, weights } in windows {
            let mut sums = [0; 3];
            for (pixel, weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(value);
                }
            }
            result.extend(sums.map(byte));
        }
    }
    result
}

/// Resamples columns; a row has `line` bytes.
fn along_columns(pixels: &[u8], line: usize, windows: &[Window]) -> Vec<u8> {
    let mut result = Vec::with_capacity(line * windows.len());
    let mut sums = vec![0; line];
    for Window { first, weights } in windows {
        sums.fill(0);
        for (row, weight) in pixels[first * line..].chunks_exact(line).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
        result.extend(sums.iter().map(|&sum| byte(sum)));
    }
    result
}
