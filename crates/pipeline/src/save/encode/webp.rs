//! WebP files without loss, with the parameters in their EXIF data.

use std::io::Write;

use image_webp::{ColorType, EncodingError, WebPEncoder};

use super::{Failed, exif};
use crate::save::RgbImage;

impl From<EncodingError> for Failed {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::IoError(source) => Self::Writing(source),
            other => Self::Encoding(other.to_string()),
        }
    }
}

/// Writes `image` with `parameters`.
pub(super) fn write(image: &RgbImage, target: &mut impl Write, parameters: &str) -> Result<(), Failed> {
    let mut encoder = WebPEncoder::new(target);
    encoder.set_exif_metadata(exif::data(parameters));
    let (width, height) = (image.width() as u32, image.height() as u32);
    Ok(encoder.encode(image.pixels(), width, height, ColorType::Rgb8)?)
}
