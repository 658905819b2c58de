//! Rows of pixels on their way from a decoder to what is made of them, so that no image need be there as a whole.

/// A row of stored pixels.
#[derive(Debug)]
pub(super) struct Row {
    /// Three bytes a pixel.
    colours: Vec<u8>,
    /// A byte a pixel, where the image has opacity.
    alphas: Option<Vec<u8>>,
}

/// What takes the rows of an image.
pub(super) trait Rows {
    /// Takes the stored row `index`, counted from the top. Every row comes once.
    fn take(&mut self, index: usize, row: &Row);
}

impl Row {
    /// A row of `width` pixels.
    pub(super) fn new(width: usize, has_alpha: bool) -> Self {
        Self {
            colours: vec![0; 3 * width],
            alphas: has_alpha.then(|| vec![u8::MAX; width]),
        }
    }

    /// How many pixels it has.
    pub(super) fn width(&self) -> usize {
        self.colours.len() / 3
    }

    /// Sets a pixel.
    pub(super) fn set(&mut self, index: usize, colour: [u8; 3], alpha: u8) {
        self.colours[3 * index..3 * index + 3].copy_from_slice(&colour);
        if let Some(alphas) = &mut self.alphas {
            alphas[index] = alpha;
        }
    }

    /// Three bytes a pixel.
    pub(super) fn colours(&self) -> &[u8] {
        &self.colours
    }

    /// A byte a pixel, where the image has opacity.
    pub(super) fn alphas(&self) -> Option<&[u8]> {
        self.alphas.as_deref()
    }
}
