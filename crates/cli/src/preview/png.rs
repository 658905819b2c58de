//! The PNG of a preview, in the letters in which protocols and JSON take it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sd_pipeline::save::RgbImage;

/// `image` as PNG in base64. None if it cannot be encoded, as one without pixels.
pub(crate) fn base64_png(image: &RgbImage) -> Option<String> {
    Some(STANDARD.encode(image.to_png()?))
}
