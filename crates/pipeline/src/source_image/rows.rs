//! Rows of pixels, passed from a decoder to a consumer, so that the image is never held as a whole.

/// A row of stored pixels.
#[derive(Debug)]
pub(super) struct Row {
    /// Three bytes per pixel.
    colours: Vec<u8>,
    /// A byte per pixel, if the image has alpha.
    alphas: Option<Vec<u8>>,
}

/// A consumer of the rows of an image.
pub(super) trait Rows {
    /// Takes the stored row `index`, counted from the top. Every row is passed once.
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

    /// The number of pixels.
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

    /// Three bytes per pixel.
    pub(super) fn colours(&self) -> &[u8] {
        &self.colours
    }

    /// A byte per pixel, if the image has alpha.
    pub(super) fn alphas(&self) -> Option<&[u8]> {
        self.alphas.as_deref()
    }
}
