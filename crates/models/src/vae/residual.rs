//! The residual blocks of encoder and decoder.

use candle_core::{Result, Tensor};
use sd_ops::{BandedConv2d, ChannelMoments, Conv2d, GroupNorm, conv2d};
use sd_weights::Weights;

use super::banded::{BandedTensor, Input};
use super::config::NORM_EPSILON;
use crate::bands::{Carried, Rows, convolved, moments};
use crate::layers;

/// Two convolutions, each after a group norm and silu, with a shortcut around them.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(super) fn new(
        weights: &Weights,
        groups: usize,
        inputs: usize,
        outputs: usize,
    ) -> sd_weights::Result<Self> {
        Ok(Self {
            norm1: layers::group_norm(&weights.scope("norm1"), groups, inputs, NORM_EPSILON)?,
            conv1: layers::conv2d(&weights.scope("conv1"), inputs, outputs, 3, 1, 1)?,
            norm2: layers::group_norm(&weights.scope("norm2"), groups, outputs, NORM_EPSILON)?,
            conv2: layers::conv2d(&weights.scope("conv2"), outputs, outputs, 3, 1, 1)?,
            shortcut: if inputs == outputs {
                None
            } else {
                Some(layers::conv2d(
                    &weights.scope("conv_shortcut"),
                    inputs,
                    outputs,
                    1,
                    1,
                    0,
                )?)
            },
        })
    }

    /// `x + conv2(silu(norm2(conv1(silu(norm1(x))))))`, where the first `x` passes through the shortcut's
    /// convolution if there is one. The result replaces `x`, which is dropped.
    pub(super) fn forward<'a>(&self, x: impl Into<Input<'a>>) -> Result<BandedTensor> {
        let mut x = x.into();
        let (banding, inputs, outputs) = (x.banding(), self.conv1.in_channels(), self.conv1.out_channels());
        if x.values(inputs)? <= banding.stored {
            x = x.held()?.into();
        }
        let norm1 = moments(x.rows()?)?;
        let carried = Carried::default();
        // The hidden feature map replaces `x` too, together with the residual.
        let (norm2, hidden) = if x.values(inputs.max(2 * outputs))? <= banding.stored {
            let hidden = self.first(self.carry(x.into_rows()?, &carried), &norm1)?;
            let hidden = BandedTensor::hold(hidden, banding)?;
            (moments(hidden.rows())?, hidden.into_rows())
        } else {
            let norm2 = moments(self.first(x.rows()?, &norm1)?)?;
            (norm2, self.first(self.carry(x.into_rows()?, &carried), &norm1)?)
        };
        let second = BandedConv2d::after_norm_silu(&self.conv2, &self.norm2, &norm2)?;
        BandedTensor::hold(convolved(hidden, second, Some(&carried)), banding)
    }

    /// The first convolution of `rows`.
    fn first<'a>(&'a self, rows: Rows<'a>, norm1: &'a ChannelMoments) -> Result<Rows<'a>> {
        let first = BandedConv2d::after_norm_silu(&self.conv1, &self.norm1, norm1)?;
        Ok(convolved(rows, first, None))
    }

    /// Passes `rows` through and pushes their residual to `carried`.
    fn carry<'a>(&'a self, rows: Rows<'a>, carried: &'a Carried) -> Rows<'a> {
        let around = |band: &Tensor| match &self.shortcut {
            Some(shortcut) => conv2d(band, shortcut),
            None => Ok(band.clone()),
        };
        Box::new(rows.map(move |band| {
            let band = band?;
            carried.borrow_mut().push_back(around(&band)?);
            Ok(band)
        }))
    }
}
