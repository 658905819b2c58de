//! JPEG files, with the parameters in their EXIF data.

use std::io::Write;

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

use super::{Failed, exif};
use crate::save::RgbImage;

/// From this quality on colours are stored at every pixel.
const FULL_COLOUR: u8 = 90;

impl From<EncodingError> for Failed {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::IoError(source) => Self::Writing(source),
            other => Self::Encoding(other.to_string()),
        }
    }
}

/// Writes `image` at `quality` with `parameters`. Text that is too long for EXIF data is left to the metadata file.
pub(super) fn write(
    image: &RgbImage,
    target: &mut impl Write,
    parameters: &str,
    quality: u8,
) -> Result<(), Failed> {
    let side = |pixels: usize| {
        u16::try_from(pixels).map_err(|_| Failed::Encoding(format!("a side of {pixels} pixels is too long")))
    };
    let (width, height) = (side(image.width())?, side(image.height())?);
    let mut encoder = Encoder::new(target, quality);
    encoder.set_sampling_factor(if quality < FULL_COLOUR {
        SamplingFactor::F_2_2
    } else {
        SamplingFactor::F_1_1
    });
    if let Some(segment) = exif::segment(parameters) {
        encoder.add_app_segment(1, segment)?;
    }
    Ok(encoder.encode(image.pixels(), width, height, ColorType::Rgb)?)
}
