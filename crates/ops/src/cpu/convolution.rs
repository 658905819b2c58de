//! Convolutions on the processor, as products with columns of the input that are gathered band by band.

use gemm::Parallelism;
use rayon::prelude::*;

use super::product::{Matrix, Target, multiply};

/// Floats in the gathered columns of a band: half a megabyte, which stays in a core's cache.
const COLUMN_VALUES: usize = 1 << 17;

/// The sizes of a convolution over `[batch, channels, height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Geometry {
    /// Height and width of the result, or `None` where the kernel is larger than the padded input.
    pub(crate) fn output_sides(&self) -> Option<(usize, usize)> {
        let side = |input: usize, kernel: usize| {
            let room = (input + 2 * self.padding).checked_sub(kernel)?;
            Some(room / self.stride + 1)
        };
        Some((side(self.height, self.kernel_height)?, side(self.width, self.kernel_width)?))
    }

    fn is_pointwise(&self) -> bool {
        self.kernel_height == 1 && self.kernel_width == 1 && self.stride == 1 && self.padding == 0
    }
}

/// `x` convolved with `weight`, `[outputs, channels, kernel_height, kernel_width]`, plus `bias`.
pub(crate) fn conv2d(x: &[f32], weight: &[f32], bias: Option<&[f32]>, geometry: Geometry) -> Vec<f32> {
    let Geometry { batch, channels, height, width, outputs, .. } = geometry;
    let (rows, columns) = geometry.output_sides().unwrap_or_default();
    let (input_pixels, output_pixels) = (height * width, rows * columns);
    let patch = channels * geometry.kernel_height * geometry.kernel_width;
    let mut result = vec![0.0; batch * outputs * output_pixels];
    if output_pixels == 0 {
        return result;
    }
    if let Some(bias) = bias {
        let planes = result.par_chunks_mut(output_pixels).enumerate();
        planes.for_each(|(plane, values)| values.fill(bias[plane % outputs]));
    }

    let target = Target::new(&mut result, output_pixels);
    let weight = Matrix::row_major(weight, outputs, patch);
    let band_rows = (COLUMN_VALUES / (patch * columns).max(1)).clamp(1, rows);
    let bands: Vec<(usize, usize)> =
        (0..batch).flat_map(|image| (0..rows).step_by(band_rows).map(move |row| (image, row))).collect();
    bands.into_par_iter().for_each_init(Vec::new, |scratch: &mut Vec<f32>, (image, first_row)| {
        let band = first_row..(first_row + band_rows).min(rows);
        let pixels = band.len() * columns;
        let input = &x[image * channels * input_pixels..(image + 1) * channels * input_pixels];
        let gathered = if geometry.is_pointwise() {
            let values = &input[band.start * columns..];
            Matrix { values, rows: patch, columns: pixels, row_step: input_pixels, column_step: 1 }
        } else {
            scratch.resize(patch * pixels, 0.0);
            gather(input, scratch, band.clone(), columns, geometry);
            Matrix::row_major(&scratch[..patch * pixels], patch, pixels)
        };
        let target = target.from_offset(image * outputs * output_pixels + band.start * columns);
        // SAFETY: `result` outlives the loop, and every band writes to pixels of its own.
        #[allow(unsafe_code)]
        unsafe {
            multiply(target, weight, gathered, 1.0, true, Parallelism::None);
        }
    });
    result
}

/// Fills `columns_of` with, for each value of a patch, the inputs that it meets over the band's pixels.
fn gather(
    input: &[f32],
    columns_of: &mut [f32],
    band: std::ops::Range<usize>,
    columns: usize,
    geometry: Geometry,
) {
    let Geometry { height, width, kernel_height, kernel_width, stride, padding, .. } = geometry;
    let pixels = band.len() * columns;
    for (index, values) in columns_of.chunks_exact_mut(pixels).enumerate() {
        let (channel, offset) = (index / (kernel_height * kernel_width), index % (kernel_height * kernel_width));
        let (down, right) = (offset / kernel_width, offset % kernel_width);
        let plane = &input[channel * height * width..(channel + 1) * height * width];
        for (row, values) in band.clone().zip(values.chunks_exact_mut(columns)) {
            let Some(y) = (row * stride + down).checked_sub(padding).filter(|&y| y < height) else {
                values.fill(0.0);
                continue;
            };
            let line = &plane[y * width..(y + 1) * width];
            if stride == 1 {
                // The middle is one copy; what the padding adds is zero.
                let left = padding.saturating_sub(right).min(columns);
                let start = right.saturating_sub(padding);
                let count = width.saturating_sub(start).min(columns - left);
                values[..left].fill(0.0);
                values[left..left + count].copy_from_slice(&line[start..start + count]);
                values[left + count..].fill(0.0);
            } else {
                for (column, value) in values.iter_mut().enumerate() {
                    let x = (column * stride + right).checked_sub(padding);
                    *value = x.and_then(|x| line.get(x)).copied().unwrap_or(0.0);
                }
            }
        }
    }
}
