//! Image files: PNG, JPEG and WebP, each with the `parameters` text where other Stable Diffusion programs look for it.

mod exif;
mod jpeg;
mod png;
mod webp;

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::RgbImage;
use crate::{Error, Result};

/// The format of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// PNG, without loss.
    #[default]
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg {
        /// The quality.
        quality: u8,
    },
    /// WebP, without loss.
    WebP,
}

impl ImageFormat {
    /// The quality of JPEG files, if the user does not say.
    pub const JPEG_QUALITY: u8 = 95;

    /// The format of files with this extension, in any case.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg {
                quality: Self::JPEG_QUALITY,
            }),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg { .. } => "jpg",
            Self::WebP => "webp",
        }
    }

    /// The longest side in pixels that a file can have.
    pub fn longest_side(self) -> usize {
        match self {
            Self::Png => u32::MAX as usize >> 1,
            Self::Jpeg { .. } => usize::from(u16::MAX),
            Self::WebP => 1 << 14,
        }
    }
}

impl RgbImage {
    /// Writes the image in `format` with the text `parameters`. `path` is for messages.
    pub(super) fn write(
        &self,
        format: ImageFormat,
        target: &mut impl Write,
        parameters: &str,
        path: &Path,
    ) -> Result<()> {
        let mut buffered = BufWriter::new(target);
        let encoded = match format {
            ImageFormat::Png => png::write(self, &mut buffered, parameters),
            ImageFormat::Jpeg { quality } => jpeg::write(self, &mut buffered, parameters, quality),
            ImageFormat::WebP => webp::write(self, &mut buffered, parameters),
        };
        let written = encoded.and_then(|()| Ok(buffered.flush()?));
        written.map_err(|failed| match failed {
            Failed::Writing(source) => Error::Output {
                path: path.to_owned(),
                source,
            },
            Failed::Encoding(reason) => Error::Encoding {
                path: path.to_owned(),
                reason,
            },
        })
    }
}

/// Why an image was not written.
enum Failed {
    /// The system's error.
    Writing(std::io::Error),
    /// The encoder's.
    Encoding(String),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Writing(error)
    }
}
