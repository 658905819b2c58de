//! The moments of channels whose rows come band by band.

use candle_core::{Tensor, bail};

use super::on_gpu;
use crate::Result;
use crate::capabilities::Backend;

/// The moments of each channel of images on a GPU.
#[derive(Debug, Clone)]
pub(crate) struct ChannelMoments {
    /// Values of a channel.
    count: usize,
    /// The mean and the sum of squared deviations from it: `[batch, channels, 2]`, in 32 bits.
    moments: Tensor,
}

impl ChannelMoments {
    /// The moments of `rows`, `[batch, channels, rows, width]`, and those of `earlier` rows of the same images.
    ///
    /// # Errors
    /// `earlier` are those of other images, or the device fails.
    pub(crate) fn of(rows: &Tensor, earlier: Option<&Self>) -> Result<Self> {
        let (batch, channels, height, width) = rows.dims4()?;
        if let Some(earlier) = earlier
            && earlier.moments.dims() != [batch, channels, 2]
        {
            bail!("moments of other images than these of {:?}", rows.dims());
        }
        let before = earlier.map(|earlier| (earlier.count, &earlier.moments));
        Ok(Self {
            count: before.map_or(0, |(count, _)| count) + height * width,
            moments: on_gpu!(Backend::of(rows.device()), channel_moments(rows, before))?,
        })
    }

    /// For each of `groups` groups of channels its mean and the reciprocal of its standard deviation:
    /// `[batch, groups, 2]`, in 32 bits.
    ///
    /// # Errors
    /// The device fails.
    pub(crate) fn statistics(&self, groups: usize, epsilon: f64) -> Result<Tensor> {
        let backend = Backend::of(self.moments.device());
        on_gpu!(
            backend,
            grouped_statistics(&self.moments, self.count, groups, epsilon)
        )
    }
}
