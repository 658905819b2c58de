//! Inpainting masks from the rows of an image.

use super::orientation::Orientation;
use super::resampled::Resampled;
use super::rows::{Row, Rows};
use crate::request::ImageSize;

/// A pixel of at least this brightness is inpainted, as in diffusers.
const BRIGHT: u8 = 128;
/// A pixel of more than this opacity is inpainted, as in stable-diffusion-webui.
const OPAQUE: u8 = 128;

/// A mask in progress.
///
/// If some pixels of the image are not opaque, its alpha channel is the mask, as in stable-diffusion-webui,
/// where masks are painted on a transparent layer. Otherwise its luminance is, as in Pillow's `convert("L")`.
#[derive(Debug)]
pub(super) struct MaskRows {
    stored: (usize, usize),
    orientation: Orientation,
    bright: Vec<bool>,
    opaque: Vec<bool>,
    has_transparency: bool,
}

impl MaskRows {
    pub(super) fn new(stored: (usize, usize), orientation: Orientation) -> Self {
        let pixels = stored.0 * stored.1;
        Self {
            stored,
            orientation,
            bright: vec![false; pixels],
            opaque: vec![true; pixels],
            has_transparency: false,
        }
    }

    /// Bytes of a mask of `pixels` in progress.
    pub(super) fn bytes(pixels: u64) -> u64 {
        2 * pixels
    }

    /// The upright mask, in row order.
    pub(super) fn finish(self) -> Vec<bool> {
        if self.has_transparency {
            self.opaque
        } else {
            self.bright
        }
    }
}

impl Rows for MaskRows {
    fn take(&mut self, index: usize, row: &Row) {
        let (width, _) = self.orientation.upright(self.stored);
        for (x, colour) in row.colours().as_chunks().0.iter().enumerate() {
            let (across, down) = self.orientation.upright_position((x, index), self.stored);
            let pixel = down * width + across;
            self.bright[pixel] = brightness(*colour) >= BRIGHT;
            if let Some(alphas) = row.alphas() {
                self.opaque[pixel] = alphas[x] > OPAQUE;
                self.has_transparency |= alphas[x] < u8::MAX;
            }
        }
    }
}

/// A mask in progress that is resampled to the size of its image, as diffusers resamples both.
#[derive(Debug)]
pub(super) struct ResampledMask {
    colours: Resampled,
    /// The alpha channel, in all three channels.
    alphas: Resampled,
    has_transparency: bool,
}

impl ResampledMask {
    /// A mask with `stored` sides that becomes an upright one of `size`.
    pub(super) fn new(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> Self {
        let [colours, alphas] = [(); 2].map(|()| Resampled::new(stored, orientation, size));
        Self {
            colours,
            alphas,
            has_transparency: false,
        }
    }

    /// The peak bytes, with the finished mask.
    pub(super) fn bytes(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> u64 {
        let pixels = (size.width() * size.height()) as u64;
        2 * (3 * pixels + Resampled::bytes(stored, orientation, size)) + pixels + 3 * stored.0 as u64
    }

    /// The upright mask, in row order.
    pub(super) fn finish(self) -> Vec<bool> {
        let (image, is_replaced): (_, fn(&[u8; 3]) -> bool) = if self.has_transparency {
            (self.alphas, |[alpha, ..]| *alpha > OPAQUE)
        } else {
            (self.colours, |colour| brightness(*colour) >= BRIGHT)
        };
        let image = image.finish();
        image.pixels().as_chunks().0.iter().map(is_replaced).collect()
    }
}

impl Rows for ResampledMask {
    fn take(&mut self, index: usize, row: &Row) {
        self.colours.take(index, row);
        let mut opacity = Row::new(row.width(), false);
        for x in 0..row.width() {
            let alpha = row.alphas().map_or(u8::MAX, |alphas| alphas[x]);
            self.has_transparency |= alpha < u8::MAX;
            opacity.set(x, [alpha; 3], u8::MAX);
        }
        self.alphas.take(index, &opacity);
    }
}

/// The luma of ITU-R 601-2, as Pillow rounds it.
fn brightness([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + (1 << 15)) >> 16) as u8
}
