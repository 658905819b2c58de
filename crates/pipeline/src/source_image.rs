//! Pictures that the user names: opened, whatever they are called, and brought to a size.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::{Device, Tensor};
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageReader, RgbImage as Pixels};

use crate::request::ImageSize;
use crate::save::RgbImage;
use crate::{Error, Result};

/// A picture that was opened.
#[derive(Debug)]
pub(crate) struct SourceImage(DynamicImage);

impl SourceImage {
    /// Opens the picture at `path`: a PNG, JPEG or WebP file, by what it holds.
    ///
    /// # Errors
    /// It cannot be read, or is no such picture.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| Error::BadImage {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let reader = ImageReader::new(BufReader::new(file)).with_guessed_format();
        let reader = reader.map_err(|error| bad(error.to_string()))?;
        Ok(Self(reader.decode().map_err(|error| bad(error.to_string()))?))
    }

    /// Its sides in pixels: width and height.
    pub(crate) fn sides(&self) -> (usize, usize) {
        (self.0.width() as usize, self.0.height() as usize)
    }

    /// The size to draw in where the user names none: the picture's own, down to the nearest that is a size.
    pub(crate) fn nearest_size(&self) -> Option<ImageSize> {
        let (width, height) = self.sides();
        let down = |side: usize| side / ImageSize::STEP * ImageSize::STEP;
        ImageSize::new(down(width), down(height)).ok()
    }

    /// The picture at `size`, in colour. What is another size is resampled (Lanczos, three lobes).
    pub(crate) fn at(&self, size: ImageSize) -> RgbImage {
        let pixels: Pixels = self.0.to_rgb8();
        let (width, height) = (size.width() as u32, size.height() as u32);
        let pixels = if pixels.dimensions() == (width, height) {
            pixels
        } else {
            imageops::resize(&pixels, width, height, FilterType::Lanczos3)
        };
        RgbImage::new(size.width(), size.height(), pixels.into_raw())
    }

    /// The picture as a mask: true where it is brighter than half, pixel by pixel.
    pub(crate) fn mask(&self) -> Vec<bool> {
        let pixels: GrayImage = self.0.to_luma8();
        pixels
            .into_raw()
            .into_iter()
            .map(|brightness| brightness >= 128)
            .collect()
    }
}

impl RgbImage {
    /// The picture as an autoencoder takes it: `[1, 3, height, width]`, values from -1 to 1.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self
            .pixels()
            .iter()
            .map(|&byte| f32::from(byte) / 127.5 - 1.0)
            .collect();
        let rows = Tensor::from_vec(values, (self.height(), self.width(), 3), &Device::Cpu)?;
        Ok(rows.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_opened_by_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.txt");
        let pixels = Pixels::from_fn(40, 33, |x, _| image::Rgb([if x < 20 { 0 } else { 255 }, 7, 7]));
        pixels.save_with_format(&path, image::ImageFormat::Png).unwrap();
        let source = SourceImage::open(&path).unwrap();
        let size = source.nearest_size().unwrap();
        assert_eq!((size.width(), size.height()), (32, 32));
        let resampled = source.at(size);
        assert_eq!(resampled.pixels()[..3], [0, 7, 7]);
        let mask = SourceImage(DynamicImage::ImageLuma8(
            GrayImage::from_raw(2, 1, vec![127, 128]).unwrap(),
        ));
        assert_eq!(mask.mask(), [false, true]);
        std::fs::write(&path, "no picture").unwrap();
        let error = SourceImage::open(&path).unwrap_err();
        assert!(matches!(error, Error::BadImage { .. }), "{error:?}");
    }

    #[test]
    fn black_and_white_are_the_ends() {
        let image = RgbImage::new(1, 1, vec![0, 255, 51]);
        let values = image.to_tensor().unwrap().flatten_all().unwrap();
        assert_eq!(values.to_vec1::<f32>().unwrap(), [-1.0, 1.0, -0.6]);
    }
}
