//! The initial image of image-to-image and its inpainting mask. Headers are read before the run is planned,
//! pixels after.

use crate::image_size::ImageSize;
use crate::plan::SourceImageBytes;
use crate::request::InitImage;
use crate::save::RgbImage;
use crate::source_image::SourceImage;
use crate::stage::Mask;
use crate::{Error, Result};

/// The files of the initial image and of its mask, opened by their headers.
#[derive(Debug)]
pub(super) struct InitImageSource {
    image: SourceImage,
    mask: Option<SourceImage>,
}

/// The initial image and its mask, at the size of the run's images.
#[derive(Debug)]
pub(crate) struct LoadedInitImage {
    pub(super) image: RgbImage,
    pub(super) mask: Option<Mask>,
}

impl InitImageSource {
    /// Opens the image of `init`.
    ///
    /// # Errors
    /// It is not a valid image.
    pub(super) fn open(init: &InitImage) -> Result<Self> {
        Ok(Self {
            image: SourceImage::open(&init.image)?,
            mask: None,
        })
    }

    /// Opens the mask of `init`, if it has one, for images of `size`.
    ///
    /// # Errors
    /// It is not a valid image, or has neither the size of the initial image nor `size`.
    pub(super) fn open_mask(&mut self, init: &InitImage, size: ImageSize) -> Result<()> {
        if let Some(path) = &init.mask {
            self.mask = Some(Mask::source(path, &self.image, size)?);
        }
        Ok(())
    }

    /// The default size of the generated images.
    pub(super) fn nearest_size(&self) -> Option<ImageSize> {
        self.image.nearest_size()
    }

    /// Bytes of both for images of `size`.
    pub(super) fn bytes(&self, size: ImageSize) -> SourceImageBytes {
        let pixels = (size.width() * size.height()) as u64;
        let image = SourceImageBytes {
            held: 3 * pixels,
            reading: self.image.bytes_at(size),
        };
        let mask = self.mask.as_ref().map(|mask| SourceImageBytes {
            held: pixels,
            reading: mask.bytes_as_mask_at(size),
        });
        image.and(mask.unwrap_or_default())
    }

    /// Reads both for images of `size`. A damaged mask is left out, and its error returned.
    ///
    /// # Errors
    /// The image is damaged.
    pub(super) fn read(&self, size: ImageSize) -> Result<(LoadedInitImage, Option<Error>)> {
        let image = self.image.at(size)?;
        let mask = self.mask.as_ref().map(|mask| Mask::read(mask, size)).transpose();
        let (mask, failed) = match mask {
            Ok(mask) => (mask, None),
            Err(error) => (None, Some(error)),
        };
        Ok((LoadedInitImage { image, mask }, failed))
    }
}
