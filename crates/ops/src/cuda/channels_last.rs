//! The layout of images whose channels are last: `[batch, channels, height, width]` by their shape, `[batch, height, width,
//! channels]` in memory.

use candle_core::Tensor;

use crate::Result;

/// Whether the channels of each pixel lie side by side, and the pixels one behind the other, and not the other way.
pub(super) fn is_channels_last(image: &Tensor) -> bool {
    pixels(image).is_some_and(|pixels| pixels.is_contiguous())
}

/// `[batch, height, width, channels]` of a tensor of four dimensions whose channels lie side by side, unless it is
/// contiguous as it is.
pub(super) fn pixels(image: &Tensor) -> Option<Tensor> {
    (image.rank() == 4 && image.stride()[1] == 1 && !image.is_contiguous())
        .then(|| image.permute((0, 2, 3, 1)).ok())
        .flatten()
}

/// The image of such pixels.
///
/// # Errors
/// They have other than four dimensions.
pub(super) fn of_pixels(pixels: &Tensor) -> Result<Tensor> {
    pixels.permute((0, 3, 1, 2))
}
