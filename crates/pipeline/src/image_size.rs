//! The size of images: in pixels, or as an aspect ratio at the area that a model was trained for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An image's width and height in pixels, both positive multiples of [`ImageSize::STEP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Sides")]
pub struct ImageSize {
    width: usize,
    height: usize,
}

/// Width and height before validation.
#[derive(Deserialize)]
struct Sides {
    width: usize,
    height: usize,
}

impl TryFrom<Sides> for ImageSize {
    type Error = BadSize;

    fn try_from(Sides { width, height }: Sides) -> Result<Self, BadSize> {
        Self::new(width, height)
    }
}

impl ImageSize {
    /// Both sides are multiples of this: eight pixels per latent, two latents per patch.
    pub const STEP: usize = 16;
    /// The longest supported side.
    pub const MAXIMUM: usize = 16_384;

    /// A size of `width` by `height` pixels.
    ///
    /// # Errors
    /// A side is zero, too long, or not a multiple of [`ImageSize::STEP`].
    pub fn new(width: usize, height: usize) -> Result<Self, BadSize> {
        let fits = |side: usize| side > 0 && side <= Self::MAXIMUM && side.is_multiple_of(Self::STEP);
        if fits(width) && fits(height) {
            Ok(Self { width, height })
        } else {
            Err(BadSize::Sides { width, height })
        }
    }

    /// Width in pixels.
    pub fn width(self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(self) -> usize {
        self.height
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.width, self.height)
    }
}

impl FromStr for ImageSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sides = text.split_once(['x', 'X', '×']);
        let sides =
            sides.and_then(|(width, height)| Some((width.trim().parse().ok()?, height.trim().parse().ok()?)));
        let (width, height) = sides.ok_or_else(|| BadSize::Text(text.to_owned()))?;
        Self::new(width, height)
    }
}

/// Why a size is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// The text has not the form of a size.
    #[error("`{0}` is not a size: write it like 1024x768, 16:9, portrait, landscape or square")]
    Text(String),
    /// An aspect ratio is invalid.
    #[error("{width}:{height} is not possible: one side is at most 8 times the other")]
    Ratio {
        /// The width.
        width: u32,
        /// The height.
        height: u32,
    },
    /// A side is invalid. The message names the nearest valid size.
    #[error("{width}x{height} is not possible: both sides must be multiples of 16, at most 16384; {} is the nearest", nearest(*.width, *.height))]
    Sides {
        /// The requested width.
        width: usize,
        /// The requested height.
        height: usize,
    },
}

fn nearest(width: usize, height: usize) -> ImageSize {
    let step = ImageSize::STEP;
    let round = |side: usize| {
        (side.min(ImageSize::MAXIMUM) + step / 2)
            .div_euclid(step)
            .clamp(1, ImageSize::MAXIMUM / step)
            * step
    };
    ImageSize {
        width: round(width),
        height: round(height),
    }
}

/// A size of the user: in pixels, or an aspect ratio.
#[doc(alias = "aspect ratio")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeChoice {
    /// This size.
    Exact(ImageSize),
    /// A size of this aspect ratio, about as large as the model's own.
    Aspect(AspectRatio),
}

impl SizeChoice {
    /// The size for a model whose own is `own`.
    pub fn resolve(self, own: ImageSize) -> ImageSize {
        match self {
            Self::Exact(size) => size,
            Self::Aspect(ratio) => ratio.at_area_of(own),
        }
    }
}

impl From<ImageSize> for SizeChoice {
    fn from(size: ImageSize) -> Self {
        Self::Exact(size)
    }
}

impl FromStr for SizeChoice {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = match text {
            "square" => Some((1, 1)),
            "portrait" => Some(PORTRAIT),
            "landscape" => Some((PORTRAIT.1, PORTRAIT.0)),
            _ => text
                .split_once(':')
                .and_then(|(width, height)| Some((width.trim().parse().ok()?, height.trim().parse().ok()?))),
        };
        match named {
            Some((width, height)) => AspectRatio::new(width, height).map(Self::Aspect),
            None => text.parse().map(Self::Exact),
        }
    }
}

/// Portraits: about 2:3, the ratio of 832x1216, a size that SDXL was trained for.
const PORTRAIT: (u32, u32) = (13, 19);

/// Width to height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AspectRatio {
    width: u32,
    height: u32,
}

impl AspectRatio {
    /// Models that generate images this much wider than high, or higher than wide, do not exist.
    const MOST: u32 = 8;

    /// The ratio of `width` to `height`.
    ///
    /// # Errors
    /// One is zero, or they differ too much.
    pub fn new(width: u32, height: u32) -> Result<Self, BadSize> {
        let (less, more) = (width.min(height), width.max(height));
        if less == 0 || more > less.saturating_mul(Self::MOST) {
            return Err(BadSize::Ratio { width, height });
        }
        Ok(Self { width, height })
    }

    /// The size of this ratio whose area is nearest to that of `own`. Sides are multiples of 64 pixels, as models are
    /// trained with them (Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image
    /// Synthesis", 2023, appendix I), or of [`ImageSize::STEP`] for small models.
    pub fn at_area_of(self, own: ImageSize) -> ImageSize {
        const TRAINED_STEP: usize = 64;
        let area = (own.width * own.height) as f64;
        let step = if own.width.min(own.height) >= 8 * TRAINED_STEP {
            TRAINED_STEP
        } else {
            ImageSize::STEP
        };
        let ratio = f64::from(self.width) / f64::from(self.height);
        // How far a size is from the ratio and from the area.
        let error = |size: &ImageSize| {
            let (width, height) = (size.width as f64, size.height as f64);
            (width / height / ratio).ln().abs() + (width * height / area).ln().abs()
        };
        let below = |side: f64| (side / step as f64) as usize * step;
        let (width, height) = (below((area * ratio).sqrt()), below((area / ratio).sqrt()));
        let candidates = [width, width + step]
            .into_iter()
            .flat_map(|width| [height, height + step].map(|height| ImageSize::new(width, height)))
            .flatten();
        candidates
            .min_by(|one, other| error(one).total_cmp(&error(other)))
            .unwrap_or(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_held_to_its_step() {
        assert_eq!("1024x768".parse(), ImageSize::new(1024, 768));
        assert_eq!(" 64 X 64 ".parse(), ImageSize::new(64, 64));
        for text in [
            "100x100",
            "0x64",
            "64",
            "x",
            "64x-64",
            "99999999999999999999x64",
            "32768x64",
        ] {
            assert!(text.parse::<ImageSize>().is_err(), "{text}");
        }
        let message = "1000x250".parse::<ImageSize>().unwrap_err().to_string();
        assert!(message.contains("1008x256 is the nearest"), "{message}");
        assert_eq!(nearest(usize::MAX, 0).to_string(), "16384x16");
    }

    #[test]
    fn a_ratio_has_the_area_of_the_models_own_size() {
        let size = |text: &str, own: usize| {
            let choice: SizeChoice = text.parse().unwrap();
            choice.resolve(ImageSize::new(own, own).unwrap()).to_string()
        };
        for (text, own, expected) in [
            ("16:9", 1024, "1344x768"),
            ("9:16", 1024, "768x1344"),
            ("4:3", 1024, "1152x896"),
            ("portrait", 1024, "832x1216"),
            ("landscape", 1024, "1216x832"),
            ("square", 1024, "1024x1024"),
            ("1:1", 512, "512x512"),
            ("16:9", 512, "704x384"),
            ("2:1", 64, "96x48"),
            ("8:1", 16, "32x16"),
            ("640x480", 1024, "640x480"),
        ] {
            assert_eq!(size(text, own), expected, "{text} at {own}");
        }
        for text in [
            "0:1",
            "1:0",
            "9:1",
            "1:9",
            "4294967296:1",
            "16:",
            ":",
            "-1:1",
            "Portrait",
            "wide",
        ] {
            assert!(text.parse::<SizeChoice>().is_err(), "{text}");
        }
    }
}
