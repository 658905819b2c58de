//! The PNG of a preview, in the letters in which protocols and JSON take it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Encoder};
use sd_pipeline::save::RgbImage;

/// `image` as PNG in base64. None if it cannot be encoded, as one without pixels.
pub(crate) fn base64_png(image: &RgbImage) -> Option<String> {
    let (width, height) = (image.width().try_into().ok()?, image.height().try_into().ok()?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(image.pixels()).ok()?;
    writer.finish().ok()?;
    Some(STANDARD.encode(bytes))
}
