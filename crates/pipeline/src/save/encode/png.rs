//! PNG files, with the parameters in a text chunk.

use std::io::Write;

use super::Failed;
use crate::save::RgbImage;

/// The keyword of the text chunk that Stable Diffusion programs read.
const KEYWORD: &str = "parameters";

impl From<png::EncodingError> for Failed {
    fn from(error: png::EncodingError) -> Self {
        match error {
            png::EncodingError::IoError(source) => Self::Writing(source),
            other => Self::Encoding(other.to_string()),
        }
    }
}

/// Writes `image` with `parameters`.
pub(super) fn write(image: &RgbImage, target: &mut impl Write, parameters: &str) -> Result<(), Failed> {
    let mut encoder = png::Encoder::new(target, image.width() as u32, image.height() as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // A tEXt chunk is Latin-1; other text goes into an iTXt chunk.
    let is_latin = parameters.chars().all(|character| u32::from(character) < 256);
    if is_latin {
        encoder.add_text_chunk(KEYWORD.into(), parameters.into())?;
    } else {
        encoder.add_itxt_chunk(KEYWORD.into(), parameters.into())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.pixels())?;
    Ok(writer.finish()?)
}
