//! The arithmetic of upscaling.

use super::Upscaler;
use super::architecture::{Architecture, Compact, Dense};
use crate::Work;

impl Upscaler {
    /// The arithmetic of upscaling an image of `height` and `width`.
    pub fn work(&self, height: usize, width: usize) -> Work {
        upscaling(self.architecture, height, width)
    }
}

fn upscaling(architecture: Architecture, height: usize, width: usize) -> Work {
    let factor = architecture.unshuffled();
    let pixels = height.div_ceil(factor) * width.div_ceil(factor);
    match architecture {
        Architecture::Dense(sizes) => dense(sizes, pixels),
        Architecture::Compact(sizes) => compact(sizes, pixels),
    }
}

fn dense(sizes: Dense, pixels: usize) -> Work {
    let Dense {
        features,
        growth,
        blocks,
        unshuffled,
    } = sizes;
    let grown = |index: usize| {
        let inputs = features + index * growth;
        let outputs = if index == 4 { features } else { growth };
        // The activation, or the sum with the block's input, and what is concatenated.
        Work::conv2d(pixels, inputs, outputs, 3).and(Work::elementwise(pixels * (inputs + 2 * outputs)))
    };
    let dense_block: Work = (0..5).map(grown).sum();
    let square =
        |pixels: usize| Work::conv2d(pixels, features, features, 3).and(Work::elementwise(pixels * features));
    [
        Work::conv2d(pixels, 3 * unshuffled * unshuffled, features, 3),
        dense_block.times(3 * blocks),
        square(pixels),
        square(4 * pixels),
        square(16 * pixels).times(2),
        Work::conv2d(16 * pixels, features, 3, 3),
    ]
    .into_iter()
    .sum()
}

fn compact(sizes: Compact, pixels: usize) -> Work {
    let Compact {
        features,
        convolutions,
        scale,
    } = sizes;
    let between = Work::conv2d(pixels, features, features, 3).and(Work::elementwise(pixels * features));
    [
        Work::conv2d(pixels, 3, features, 3),
        between.times(convolutions.saturating_sub(2)),
        Work::conv2d(pixels, features, 3 * scale * scale, 3),
    ]
    .into_iter()
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_esrgan_counts_by_its_parameters() {
        let sizes = Dense {
            features: 64,
            growth: 32,
            blocks: 23,
            unshuffled: 1,
        };
        let work = upscaling(Architecture::Dense(sizes), 10, 10);
        // RRDBNet's 16.7 million parameters without 22 thousand biases: 16.6 million are used for each pixel
        // of the image, the last ones for each of the larger images.
        let dense_block = 9 * (64 * 32 + 96 * 32 + 128 * 32 + 160 * 32 + 192 * 64);
        let at_image = 9 * 3 * 64 + 69 * dense_block + 9 * 64 * 64;
        assert_eq!(dense_block, 239_616);
        let larger = 4 * 9 * 64 * 64 + 16 * (2 * 9 * 64 * 64 + 9 * 64 * 3);
        assert_eq!(work.multiply_adds, 100 * (at_image + larger));
    }

    #[test]
    fn a_chain_of_convolutions_counts_each() {
        let sizes = Compact {
            features: 64,
            convolutions: 34,
            scale: 4,
        };
        let work = upscaling(Architecture::Compact(sizes), 10, 20);
        let parameters = 9 * (3 * 64 + 32 * 64 * 64 + 64 * 48);
        assert_eq!(work.multiply_adds, 200 * parameters);
    }
}
