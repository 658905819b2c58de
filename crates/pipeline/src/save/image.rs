//! An image in memory.

use candle_core::{DType, Tensor};

use crate::Result;

/// An RGB image: rows from top to bottom, three bytes per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// An image of `pixels`, `3 * width * height` bytes.
    ///
    /// # Panics
    /// There are more or fewer bytes. This is a bug.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(
            pixels.len(),
            3 * width * height,
            "an image has three bytes a pixel. This is a bug."
        );
        Self {
            width,
            height,
            pixels,
        }
    }

    /// Converts a tensor `[3, height, width]` with values from -1 to 1, which are clamped. Values are rounded
    /// to the nearest byte, halves to even, as numpy does in diffusers.
    ///
    /// # Errors
    /// The tensor has another shape, or the device fails.
    pub fn from_tensor(image: &Tensor) -> Result<Self> {
        let (channels, height, width) = image.dims3()?;
        let values = image.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let byte = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let count = width * height;
        let mut pixels = vec![0; channels * count];
        for (channel, values) in values.chunks_exact(count.max(1)).enumerate() {
            for (pixel, &value) in pixels.chunks_exact_mut(channels).zip(values) {
                pixel[channel] = byte(value);
            }
        }
        Ok(Self::new(width, height, pixels))
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Three bytes per pixel, rows from top to bottom.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The image as PNG, without metadata. None if it cannot be encoded, as one without pixels.
    pub fn to_png(&self) -> Option<Vec<u8>> {
        let (width, height) = (self.width.try_into().ok()?, self.height.try_into().ok()?);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().ok()?;
        writer.write_image_data(&self.pixels).ok()?;
        writer.finish().ok()?;
        Some(bytes)
    }
}
