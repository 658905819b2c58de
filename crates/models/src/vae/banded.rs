//! Feature maps as bands of rows, stored or recomputed on the fly.

use std::collections::VecDeque;

use candle_core::{Result, Tensor};
use sd_ops::{BandedConv2d, Capabilities, Conv2d, concatenate};

use crate::bands::{Rows, convolved, regrouped};

/// The size of bands, and how many values are stored. On a CPU the result has the same bits whatever the
/// banding; memory and time differ. Unlike tiling in diffusers, banding is exact.
#[doc(alias = "tiling")]
#[doc(alias = "vae tiling")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Banding {
    /// Values of a band, unless a single row has more.
    pub band: usize,
    /// Values that may be stored at a time beside the current bands, unless more are unavoidable. Beyond it
    /// values are recomputed each time they are used.
    pub stored: usize,
}

impl Banding {
    /// One band, with nothing recomputed.
    pub const WHOLE: Self = Self {
        band: usize::MAX,
        stored: usize::MAX,
    };
    /// 256 MB of 32-bit floats, which are stored rather than recomputed.
    const STORED: usize = 1 << 26;

    /// The banding on a device of `capabilities` for a network in which a feature map of `largest` values must be
    /// stored.
    pub(super) fn beside(largest: usize, capabilities: &Capabilities) -> Self {
        Self {
            band: capabilities.saturating_values,
            stored: largest.max(Self::STORED),
        }
    }

    /// Rows of a band of a feature map with rows of `values` values.
    pub(super) fn rows(self, values: usize) -> usize {
        (self.band / values.max(1)).max(1)
    }

    /// Rows of `line` pixels that become a band after upsampling to `channels` channels.
    pub(super) fn smaller_rows(self, line: usize, channels: usize) -> usize {
        (self.rows(2 * line * channels) / 2).max(1)
    }
}

/// A feature map `[batch, channels, height, width]`, stored as bands of rows.
#[derive(Debug, Clone)]
pub(super) struct BandedTensor {
    bands: VecDeque<Tensor>,
    banding: Banding,
}

impl BandedTensor {
    /// `x` as one band.
    pub(super) fn whole(x: Tensor, banding: Banding) -> Self {
        Self {
            bands: VecDeque::from([x]),
            banding,
        }
    }

    /// `x`, split into bands that are large enough once they have `channels` channels.
    pub(super) fn split(x: Tensor, channels: usize, banding: Banding) -> Result<Self> {
        let whole = Self::whole(x, banding);
        let height = banding.rows(whole.line()? * channels);
        Self::hold(regrouped(whole.into_rows(), height), banding)
    }

    /// Stores the bands of `rows`.
    pub(super) fn hold(rows: Rows<'_>, banding: Banding) -> Result<Self> {
        Ok(Self {
            bands: rows.collect::<Result<_>>()?,
            banding,
        })
    }

    /// The feature map in one piece.
    pub(super) fn joined(self) -> Result<Tensor> {
        let bands = Vec::from(self.bands);
        match bands.as_slice() {
            [whole] => Ok(whole.clone()),
            bands => concatenate(bands, 2),
        }
    }

    /// The feature map at half the resolution, if there is a `downsampler`.
    pub(super) fn downsampled(self, downsampler: Option<&Conv2d>) -> Result<Self> {
        let Some(downsampler) = downsampler else {
            return Ok(self);
        };
        let (banding, line) = (self.banding, self.line()?);
        let before = banding.rows(line * downsampler.in_channels());
        let after = banding.rows(line / 2 * downsampler.out_channels());
        let pairs = regrouped(self.into_rows(), (before / 2 * 2).max(2));
        let halves = convolved(pairs, BandedConv2d::new(downsampler)?, None);
        Self::hold(regrouped(halves, after), banding)
    }

    pub(super) fn banding(&self) -> Banding {
        self.banding
    }

    /// The bands of the feature map.
    pub(super) fn rows(&self) -> Rows<'_> {
        Box::new(self.bands.iter().cloned().map(Ok))
    }

    /// The bands of the feature map, each of which is dropped after use.
    pub(super) fn into_rows<'a>(self) -> Rows<'a> {
        Box::new(self.bands.into_iter().map(Ok))
    }

    /// Pixels of a row, over the whole batch.
    fn line(&self) -> Result<usize> {
        let Some(band) = self.bands.front() else {
            return Ok(0);
        };
        Ok(band.dim(0)? * band.dim(3)?)
    }
}

/// The input of a residual block: a stored feature map, or one that is upsampled on the fly each time it is
/// read.
#[derive(Debug)]
pub(super) struct Input<'a> {
    image: BandedTensor,
    /// Upsamples by 2 first.
    upsampler: Option<&'a Conv2d>,
}

impl<'a> Input<'a> {
    /// `image`, upsampled by 2 and convolved with `upsampler` if given.
    pub(super) fn new(image: BandedTensor, upsampler: Option<&'a Conv2d>) -> Self {
        Self { image, upsampler }
    }

    /// The input as a stored feature map.
    pub(super) fn held(self) -> Result<BandedTensor> {
        if self.upsampler.is_none() {
            return Ok(self.image);
        }
        let banding = self.image.banding;
        BandedTensor::hold(self.into_rows()?, banding)
    }

    /// Values of a feature map of `channels` channels of the input's size.
    pub(super) fn values(&self, channels: usize) -> Result<usize> {
        let mut rows = 0;
        for band in &self.image.bands {
            rows += band.dim(2)?;
        }
        let values = rows * self.image.line()? * channels;
        Ok(if self.upsampler.is_some() {
            4 * values
        } else {
            values
        })
    }

    pub(super) fn banding(&self) -> Banding {
        self.image.banding
    }

    /// The bands of the input.
    pub(super) fn rows(&self) -> Result<Rows<'_>> {
        Self::made(self.image.rows(), self.upsampler, self.smaller_height()?)
    }

    /// The bands of the input, each of which is dropped after use.
    pub(super) fn into_rows(self) -> Result<Rows<'a>> {
        let height = self.smaller_height()?;
        Self::made(self.image.into_rows(), self.upsampler, height)
    }

    /// Upsamples and convolves `rows`, `height` at a time.
    fn made<'b>(rows: Rows<'b>, upsampler: Option<&'b Conv2d>, height: usize) -> Result<Rows<'b>> {
        match upsampler {
            Some(upsampler) => {
                let convolution = BandedConv2d::after_upsampling(upsampler)?;
                Ok(convolved(regrouped(rows, height), convolution, None))
            }
            None => Ok(rows),
        }
    }

    /// Rows of the stored feature map that become a band after upsampling.
    fn smaller_height(&self) -> Result<usize> {
        let channels = self.upsampler.map_or(0, Conv2d::out_channels);
        Ok(self.image.banding.smaller_rows(self.image.line()?, channels))
    }
}

impl From<BandedTensor> for Input<'_> {
    fn from(image: BandedTensor) -> Self {
        Self::new(image, None)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::bands::moments;

    fn image(height: usize) -> Tensor {
        let values = (0..2 * 3 * height * 5).map(|value| (value as f32 * 0.37).sin());
        Tensor::from_vec(values.collect(), (2, 3, height, 5), &Device::Cpu).unwrap()
    }

    fn convolution(stride: usize, padding: usize) -> Conv2d {
        let weight = image(18).flatten_all().unwrap().narrow(0, 0, 4 * 3 * 9).unwrap();
        Conv2d::new(weight.reshape((4, 3, 3, 3)).unwrap(), None, stride, padding).unwrap()
    }

    fn heights(rows: Rows<'_>) -> Vec<usize> {
        rows.map(|band| band.unwrap().dim(2).unwrap()).collect()
    }

    fn assert_equal(found: &Tensor, expected: &Tensor) {
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found.dims(), expected.dims());
        assert!(values(found) == values(expected));
    }

    #[test]
    fn splitting_into_bands_changes_no_value() {
        let x = image(11);
        // A row of both images has 30 values.
        for (band, expected) in [(usize::MAX, vec![11]), (150, vec![5, 5, 1]), (1, vec![1; 11])] {
            let image = BandedTensor::split(x.clone(), 3, Banding { band, stored: 0 }).unwrap();
            assert_eq!(heights(image.rows()), expected);
            assert_equal(&image.joined().unwrap(), &x);
        }
    }

    #[test]
    fn bands_are_regrouped() {
        let x = image(11);
        for (before, after, expected) in [(4, 3, vec![3, 3, 3, 2]), (3, 7, vec![7, 4]), (2, 11, vec![11])] {
            let band = 30 * before;
            let image = BandedTensor::split(x.clone(), 3, Banding { band, stored: 0 }).unwrap();
            let regrouped = || regrouped(image.rows(), after);
            assert_eq!(heights(regrouped()), expected);
            assert_equal(
                &BandedTensor::hold(regrouped(), Banding::WHOLE)
                    .unwrap()
                    .joined()
                    .unwrap(),
                &x,
            );
        }
    }

    #[test]
    fn an_image_is_halved_by_bands() {
        let convolution = convolution(2, 0).padded_after(1);
        let halved = |banding| {
            let image = BandedTensor::split(image(10), 3, banding).unwrap();
            image.downsampled(Some(&convolution)).unwrap()
        };
        let whole = halved(Banding::WHOLE);
        // 2 rows become one at a time, and are put together to bands of 3.
        let by_bands = halved(Banding { band: 60, stored: 0 });
        assert_eq!(heights(by_bands.rows()), [3, 2]);
        assert_equal(&by_bands.joined().unwrap(), &whole.joined().unwrap());
    }

    #[test]
    fn a_recomputed_image_equals_a_stored_one() {
        let convolution = convolution(1, 1);
        let upsampled = |banding| {
            let image = BandedTensor::split(image(9), 3, banding).unwrap();
            Input::new(image, Some(&convolution))
        };
        let joined = |input: &Input<'_>| {
            let rows = input.rows().unwrap();
            BandedTensor::hold(rows, Banding::WHOLE)
                .unwrap()
                .joined()
                .unwrap()
        };
        let whole = joined(&upsampled(Banding::WHOLE));
        assert_eq!(whole.dims(), [2, 4, 18, 10]);
        // 5 rows of the smaller image, 2 of the larger one.
        let input = upsampled(Banding { band: 160, stored: 0 });
        assert_eq!(heights(input.rows().unwrap()), [2; 9]);
        assert_eq!(input.values(4).unwrap(), whole.elem_count());
        assert_equal(&joined(&input), &whole);
        let held = Input::from(input.held().unwrap());
        assert_eq!(held.values(4).unwrap(), whole.elem_count());
        assert_equal(&joined(&held), &whole);
        let moments = |input: &Input<'_>| format!("{:?}", moments(input.rows().unwrap()).unwrap());
        assert_eq!(moments(&held), moments(&upsampled(Banding::WHOLE)));
    }
}
