//! Downsampling and upsampling of feature maps.

use candle_core::{Result, Tensor};
use sd_ops::{Band, BandedConv2d, Capabilities, Conv2d, contiguous, conv2d, upsample_nearest};
use sd_weights::Weights;

use crate::layers;

/// A convolution of stride 2, which halves the resolution, rounded up.
pub(crate) fn downsampler(weights: &Weights, channels: usize) -> sd_weights::Result<Conv2d> {
    layers::conv2d(weights, channels, channels, 3, 2, 1)
}

/// Nearest-neighbour upsampling, then a convolution.
#[derive(Debug)]
pub(crate) struct Upsampler(Conv2d);

impl Upsampler {
    pub(crate) fn new(weights: &Weights, channels: usize) -> sd_weights::Result<Self> {
        Ok(Self(layers::conv2d(weights, channels, channels, 3, 1, 1)?))
    }

    /// `x` at `height` and `width`, which are twice its own or one less.
    pub(crate) fn forward(&self, x: Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (_, _, rows, columns) = x.dims4()?;
        let is_twice = (height, width) == (2 * rows, 2 * columns);
        if Capabilities::of(x.device()).fuses_upsampling && is_twice {
            return BandedConv2d::after_upsampling(&self.0)?.rows(Band::from(&x), None);
        }
        let mut larger = upsample_nearest(&x)?;
        drop(x);
        if larger.dims()[2..] != [height, width] {
            // Nearest pixels of an odd size are those of the even size above it.
            larger = contiguous(&larger.narrow(2, 0, height)?.narrow(3, 0, width)?)?;
        }
        conv2d(&larger, &self.0)
    }
}
