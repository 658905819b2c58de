//! Pictures that are held as bands of rows, and such as are never held.

use std::collections::VecDeque;

use candle_core::{Result, Tensor};
use sd_ops::{BandedConv2d, Conv2d};

use crate::bands::{Rows, convolved, regrouped};

/// How large bands are, and how much is held. On a processor the result is the same to the bit whatever is
/// chosen; memory and time are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Banding {
    /// Values of a band, unless a single row has more.
    pub band: usize,
    /// Values that are held at a time beside the bands that are worked on, unless it cannot be done with
    /// fewer. What exceeds them is computed again each time that it is wanted.
    pub room: usize,
}

impl Banding {
    /// One band, and all that is wanted twice is held.
    pub const WHOLE: Self = Self {
        band: usize::MAX,
        room: usize::MAX,
    };
    /// 16 MB of 32-bit numbers: enough for a convolution to be shared among many threads, and so few that a
    /// dozen bands count little.
    const BAND: usize = 1 << 22;
    /// 256 MB of 32-bit numbers, which are held rather than computed twice.
    const ROOM: usize = 1 << 26;

    /// For a network one of whose pictures has `largest` values and cannot but be held.
    pub(super) fn beside(largest: usize) -> Self {
        Self {
            band: Self::BAND,
            room: largest.max(Self::ROOM),
        }
    }

    /// Rows of a band of pictures whose rows have so many values.
    pub(super) fn rows(self, values: usize) -> usize {
        (self.band / values.max(1)).max(1)
    }

    /// Rows of `line` pixels that become a band once the picture is twice as large and has `channels`
    /// channels.
    pub(super) fn smaller_rows(self, line: usize, channels: usize) -> usize {
        (self.rows(2 * line * channels) / 2).max(1)
    }
}

/// Pictures `[batch, channels, height, width]`, held as bands of rows.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    bands: VecDeque<Tensor>,
    banding: Banding,
}

impl Picture {
    /// `x` in one piece.
    pub(super) fn whole(x: Tensor, banding: Banding) -> Self {
        Self {
            bands: VecDeque::from([x]),
            banding,
        }
    }

    /// `x`, cut into bands that are large enough once they have `channels` channels.
    pub(super) fn cut(x: Tensor, channels: usize, banding: Banding) -> Result<Self> {
        let whole = Self::whole(x, banding);
        let height = banding.rows(whole.line()? * channels);
        Self::hold(regrouped(whole.into_rows(), height), banding)
    }

    /// The picture whose bands `rows` gives.
    pub(super) fn hold(rows: Rows<'_>, banding: Banding) -> Result<Self> {
        Ok(Self {
            bands: rows.collect::<Result<_>>()?,
            banding,
        })
    }

    /// The picture in one piece.
    pub(super) fn joined(self) -> Result<Tensor> {
        let bands = Vec::from(self.bands);
        match bands.as_slice() {
            [whole] => Ok(whole.clone()),
            bands => Tensor::cat(bands, 2),
        }
    }

    /// The picture made half as large by `downsampler`, if there is one.
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

    /// The bands of the picture, which stays.
    pub(super) fn rows(&self) -> Rows<'_> {
        Box::new(self.bands.iter().cloned().map(Ok))
    }

    /// The bands of the picture, each of which goes once it was used.
    pub(super) fn into_rows<'a>(self) -> Rows<'a> {
        Box::new(self.bands.into_iter().map(Ok))
    }

    /// Pixels in a row, over all pictures of the batch.
    fn line(&self) -> Result<usize> {
        let Some(band) = self.bands.front() else {
            return Ok(0);
        };
        Ok(band.dim(0)? * band.dim(3)?)
    }
}

/// What goes into a residual block: a picture, or one that is made from it every time that it is gone
/// through, and never held.
#[derive(Debug)]
pub(super) struct Input<'a> {
    picture: Picture,
    /// Makes the picture twice as large first.
    upsampler: Option<&'a Conv2d>,
}

impl<'a> Input<'a> {
    /// `picture`, made twice as large and convolved by `upsampler` if there is one.
    pub(super) fn new(picture: Picture, upsampler: Option<&'a Conv2d>) -> Self {
        Self { picture, upsampler }
    }

    /// The input as a picture: made now if it was not held before.
    pub(super) fn held(self) -> Result<Picture> {
        if self.upsampler.is_none() {
            return Ok(self.picture);
        }
        let banding = self.picture.banding;
        Picture::hold(self.into_rows()?, banding)
    }

    /// How many values a picture of `channels` channels has that is as high and wide.
    pub(super) fn values(&self, channels: usize) -> Result<usize> {
        let mut rows = 0;
        for band in &self.picture.bands {
            rows += band.dim(2)?;
        }
        let values = rows * self.picture.line()? * channels;
        Ok(if self.upsampler.is_some() {
            4 * values
        } else {
            values
        })
    }

    pub(super) fn banding(&self) -> Banding {
        self.picture.banding
    }

    /// The bands of the input, which stays.
    pub(super) fn rows(&self) -> Result<Rows<'_>> {
        Self::made(self.picture.rows(), self.upsampler, self.smaller_height()?)
    }

    /// The bands of the input, each of which goes once it was used.
    pub(super) fn into_rows(self) -> Result<Rows<'a>> {
        let height = self.smaller_height()?;
        Self::made(self.picture.into_rows(), self.upsampler, height)
    }

    /// What `upsampler` makes of `rows`, taken `height` at a time.
    fn made<'b>(rows: Rows<'b>, upsampler: Option<&'b Conv2d>, height: usize) -> Result<Rows<'b>> {
        match upsampler {
            Some(upsampler) => {
                let convolution = BandedConv2d::after_upsampling(upsampler)?;
                Ok(convolved(regrouped(rows, height), convolution, None))
            }
            None => Ok(rows),
        }
    }

    /// Rows of the picture that become a band once it is twice as large.
    fn smaller_height(&self) -> Result<usize> {
        let channels = self.upsampler.map_or(0, Conv2d::out_channels);
        Ok(self.picture.banding.smaller_rows(self.picture.line()?, channels))
    }
}

impl From<Picture> for Input<'_> {
    fn from(picture: Picture) -> Self {
        Self::new(picture, None)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::bands::moments;

    fn picture(height: usize) -> Tensor {
        let values = (0..2 * 3 * height * 5).map(|value| (value as f32 * 0.37).sin());
        Tensor::from_vec(values.collect(), (2, 3, height, 5), &Device::Cpu).unwrap()
    }

    fn convolution(stride: usize, padding: usize) -> Conv2d {
        let weight = picture(18)
            .flatten_all()
            .unwrap()
            .narrow(0, 0, 4 * 3 * 9)
            .unwrap();
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
    fn a_picture_that_was_cut_is_the_same() {
        let x = picture(11);
        // A row of both pictures has 30 values.
        for (band, expected) in [(usize::MAX, vec![11]), (150, vec![5, 5, 1]), (1, vec![1; 11])] {
            let picture = Picture::cut(x.clone(), 3, Banding { band, room: 0 }).unwrap();
            assert_eq!(heights(picture.rows()), expected);
            assert_equal(&picture.joined().unwrap(), &x);
        }
    }

    #[test]
    fn bands_are_cut_and_put_together_anew() {
        let x = picture(11);
        for (before, after, expected) in [(4, 3, vec![3, 3, 3, 2]), (3, 7, vec![7, 4]), (2, 11, vec![11])] {
            let band = 30 * before;
            let picture = Picture::cut(x.clone(), 3, Banding { band, room: 0 }).unwrap();
            let regrouped = || regrouped(picture.rows(), after);
            assert_eq!(heights(regrouped()), expected);
            assert_equal(
                &Picture::hold(regrouped(), Banding::WHOLE)
                    .unwrap()
                    .joined()
                    .unwrap(),
                &x,
            );
        }
    }

    #[test]
    fn a_picture_is_halved_by_bands() {
        let convolution = convolution(2, 0).padded_after(1);
        let halved = |banding| {
            let picture = Picture::cut(picture(10), 3, banding).unwrap();
            picture.downsampled(Some(&convolution)).unwrap()
        };
        let whole = halved(Banding::WHOLE);
        // 2 rows become one at a time, and are put together to bands of 3.
        let by_bands = halved(Banding { band: 60, room: 0 });
        assert_eq!(heights(by_bands.rows()), [3, 2]);
        assert_equal(&by_bands.joined().unwrap(), &whole.joined().unwrap());
    }

    #[test]
    fn a_picture_that_is_not_held_is_the_same_as_one_that_is() {
        let convolution = convolution(1, 1);
        let upsampled = |banding| {
            let picture = Picture::cut(picture(9), 3, banding).unwrap();
            Input::new(picture, Some(&convolution))
        };
        let joined = |input: &Input<'_>| {
            let rows = input.rows().unwrap();
            Picture::hold(rows, Banding::WHOLE).unwrap().joined().unwrap()
        };
        let whole = joined(&upsampled(Banding::WHOLE));
        assert_eq!(whole.dims(), [2, 4, 18, 10]);
        // 5 rows of the smaller picture, 2 of the larger one.
        let input = upsampled(Banding { band: 160, room: 0 });
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
