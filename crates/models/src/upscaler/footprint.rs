//! The memory of upscaling beside the weights: the forward pass simulated by its shapes.

use sd_ops::Scratch;

use super::architecture::{Architecture, Compact, Dense};
use crate::footprint::Peak;

/// Values of a band of features: 2 MB of 32-bit floats, of which a few hundred are alive at a time.
const BAND: usize = 1 << 19;
/// The fewest bands of a feature map, so that those in flight are a part of it.
const BANDS: usize = 24;

/// Rows of a band of a feature map.
pub(super) fn band_rows(features: usize, height: usize, width: usize) -> usize {
    (BAND / (features * width)).min(height / BANDS).max(1)
}

/// The memory of upscaling an image of `height` and `width`, in bands of `rows` if given.
pub(super) fn upscaling(
    architecture: Architecture,
    rows: Option<usize>,
    [height, width]: [usize; 2],
) -> Peak {
    let factor = architecture.unshuffled();
    let (height, width) = (height.div_ceil(factor), width.div_ceil(factor));
    let rows = rows.unwrap_or_else(|| band_rows(architecture.features(), height, width));
    let size = Size {
        height,
        width,
        rows: rows.min(height),
    };
    let mut peak = Peak::default();
    match architecture {
        Architecture::Dense(sizes) => dense(&mut peak, sizes, size),
        Architecture::Compact(sizes) => compact(&mut peak, sizes, size),
    }
    peak
}

/// The size of a feature map and its bands.
#[derive(Debug, Clone, Copy)]
struct Size {
    height: usize,
    width: usize,
    rows: usize,
}

impl Size {
    fn image(self, channels: usize) -> usize {
        self.height * self.width * channels
    }

    /// `count` bands, or all of them.
    fn bands(self, count: usize, channels: usize) -> usize {
        (count * self.rows).min(self.height) * self.width * channels
    }

    /// A band with the rows around it.
    fn gathered(self, channels: usize) -> usize {
        (self.rows + 2) * self.width * channels
    }

    fn upscaled(self, factor: usize) -> Self {
        Self {
            height: factor * self.height,
            width: factor * self.width,
            rows: factor * self.rows,
        }
    }
}

fn dense(peak: &mut Peak, sizes: Dense, size: Size) {
    let Dense { features, growth, .. } = sizes;
    // The first features, which are carried around the blocks, and the image between two blocks.
    let held = 2 * size.image(features);

    // What goes into each convolution of a dense block: a band whose turn is next, and one that was put
    // together.
    let inputs = (0..5).map(|index| features + index * growth);
    let (next, gathered) = inputs.fold((0, 0), |(next, gathered), channels| {
        (next + size.bands(1, channels), gathered + size.gathered(channels))
    });
    // A dense block gives a band once its input is five bands further, and the input waits for it.
    let waiting = 2 * size.bands(4, features) - size.bands(1, features);
    let joined = 2 * features + 9 * growth;
    let shared = peak.run(Scratch::of_conv2d(features + 4 * growth, features, 3));
    peak.reach(
        held + 3 * next + waiting + size.bands(1, joined),
        3 * gathered + shared,
    );

    let (twice, four) = (size.upscaled(2), size.upscaled(4));
    let summed = peak.run(Scratch::of_upsampled_conv2d(features, features));
    let next = size.bands(2, features) + twice.bands(1, features) + four.bands(2, features);
    let gathered = 2 * size.gathered(features) + twice.gathered(features) + 2 * four.gathered(features);
    let on_their_way = next + four.bands(2, features);
    // Both images go as the result comes, which is a few bands behind.
    let behind = 4;
    let at_first = held - 2 * size.bands(behind, features);
    let at_last = four.image(3) - four.bands(behind, 3);
    peak.reach(at_first.max(at_last) + on_their_way, gathered + 2 * summed);
    peak.reach(2 * four.image(3), 0);
}

fn compact(peak: &mut Peak, sizes: Compact, size: Size) {
    let Compact { features, scale, .. } = sizes;
    let shared = peak.run(Scratch::of_conv2d(features, features, 3));
    peak.reach(
        size.image(features) + size.bands(1, features),
        size.gathered(features) + shared,
    );
    // What is added to a band of the result is made first, and its pixels are put in order last.
    let channels = 3 * scale * scale;
    peak.reach(
        size.image(features) + size.bands(3, channels),
        size.gathered(features) + shared,
    );
    peak.reach(2 * size.image(channels), 0);
}
