//! Inpainting masks from the rows of an image.

use super::orientation::Orientation;
use super::resampled::Resampled;
use super::rows::{Row, Rows};
use crate::image_size::ImageSize;

/// A pixel of at least this brightness is inpainted, as in diffusers.
const BRIGHT: u8 = 128;
/// A pixel of more than this opacity is inpainted, as in stable-diffusion-webui.
const OPAQUE: u8 = 128;

/// The two forms of a mask, of which one is used.
///
/// If some pixels of the image are not opaque, its alpha channel is the mask, as in stable-diffusion-webui,
/// where masks are painted on a transparent layer. Otherwise its luminance is, as in Pillow's `convert("L")`.
#[derive(Debug)]
struct MaskForms<T> {
    luminance: T,
    alpha: T,
    has_transparency: bool,
}

impl<T> MaskForms<T> {
    fn new(luminance: T, alpha: T) -> Self {
        Self {
            luminance,
            alpha,
            has_transparency: false,
        }
    }

    /// Takes note of a pixel's alpha.
    fn see(&mut self, alpha: u8) {
        self.has_transparency |= alpha < u8::MAX;
    }

    /// The form that is used, and whether a pixel of a colour in that form is inpainted.
    fn used(self) -> (T, fn(&[u8; 3]) -> bool) {
        if self.has_transparency {
            (self.alpha, is_opaque)
        } else {
            (self.luminance, is_bright)
        }
    }
}

fn is_bright(colour: &[u8; 3]) -> bool {
    brightness(*colour) >= BRIGHT
}

/// Whether a pixel with its alpha in all three channels is opaque.
fn is_opaque([alpha, ..]: &[u8; 3]) -> bool {
    *alpha > OPAQUE
}

/// A mask in progress.
#[derive(Debug)]
pub(super) struct MaskRows {
    stored: (usize, usize),
    orientation: Orientation,
    /// The pixels that are inpainted.
    forms: MaskForms<Vec<bool>>,
}

impl MaskRows {
    pub(super) fn new(stored: (usize, usize), orientation: Orientation) -> Self {
        let pixels = stored.0 * stored.1;
        Self {
            stored,
            orientation,
            forms: MaskForms::new(vec![false; pixels], vec![true; pixels]),
        }
    }

    /// Bytes of a mask of `pixels` in progress.
    pub(super) fn bytes(pixels: u64) -> u64 {
        2 * pixels
    }

    /// The upright mask, in row order.
    pub(super) fn finish(self) -> Vec<bool> {
        self.forms.used().0
    }
}

impl Rows for MaskRows {
    fn take(&mut self, index: usize, row: &Row) {
        let (width, _) = self.orientation.upright(self.stored);
        for (x, colour) in row.colours().as_chunks().0.iter().enumerate() {
            let (across, down) = self.orientation.upright_position((x, index), self.stored);
            let pixel = down * width + across;
            self.forms.luminance[pixel] = is_bright(colour);
            if let Some(alphas) = row.alphas() {
                self.forms.alpha[pixel] = is_opaque(&[alphas[x]; 3]);
                self.forms.see(alphas[x]);
            }
        }
    }
}

/// A mask in progress that is resampled to the size of its image, as diffusers resamples both.
#[derive(Debug)]
pub(super) struct ResampledMask(MaskForms<Resampled>);

impl ResampledMask {
    /// A mask with `stored` sides that becomes an upright one of `size`.
    pub(super) fn new(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> Self {
        let [colours, alphas] = [(); 2].map(|()| Resampled::new(stored, orientation, size));
        Self(MaskForms::new(colours, alphas))
    }

    /// The peak bytes, with the finished mask.
    pub(super) fn bytes(stored: (usize, usize), orientation: Orientation, size: ImageSize) -> u64 {
        let pixels = (size.width() * size.height()) as u64;
        2 * (3 * pixels + Resampled::bytes(stored, orientation, size)) + pixels + 3 * stored.0 as u64
    }

    /// The upright mask, in row order.
    pub(super) fn finish(self) -> Vec<bool> {
        let (form, is_inpainted) = self.0.used();
        let image = form.finish();
        image.pixels().as_chunks().0.iter().map(is_inpainted).collect()
    }
}

impl Rows for ResampledMask {
    fn take(&mut self, index: usize, row: &Row) {
        self.0.luminance.take(index, row);
        let mut opacity = Row::new(row.width(), false);
        for x in 0..row.width() {
            let alpha = row.alphas().map_or(u8::MAX, |alphas| alphas[x]);
            self.0.see(alpha);
            opacity.set(x, [alpha; 3], u8::MAX);
        }
        self.0.alpha.take(index, &opacity);
    }
}

/// The luma of ITU-R 601-2, as Pillow rounds it.
fn brightness([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + (1 << 15)) >> 16) as u8
}
