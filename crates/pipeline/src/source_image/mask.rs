//! From rows to a mask: which pixels are drawn anew.

use super::orientation::Orientation;
use super::rows::{Row, Rows};

/// Brightness from which on a pixel is drawn anew, as in diffusers.
const BRIGHT: u8 = 128;
/// Opacity above which it is, as in stable-diffusion-webui.
const OPAQUE: u8 = 128;

/// A mask whose rows have not all come.
///
/// A picture of which some pixels are not opaque says by its opacity what is drawn anew, as in stable-diffusion-webui: what
/// was painted on a transparent layer. Any other does so by its brightness, that of Pillow's `convert("L")`.
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

    /// Bytes of a mask of `pixels`, as long as its rows come.
    pub(super) fn bytes(pixels: u64) -> u64 {
        2 * pixels
    }

    /// The upright mask, row after row.
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
            let (across, down) = self.orientation.place((x, index), self.stored);
            let place = down * width + across;
            self.bright[place] = brightness(*colour) >= BRIGHT;
            if let Some(alphas) = row.alphas() {
                self.opaque[place] = alphas[x] > OPAQUE;
                self.has_transparency |= alphas[x] < u8::MAX;
            }
        }
    }
}

/// That of ITU-R 601-2, as Pillow rounds it.
fn brightness([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + (1 << 15)) >> 16) as u8
}
