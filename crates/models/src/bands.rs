//! Iterators over bands of rows: convolutions that never hold a whole feature map.
//!
//! The input of a convolution is computed just before it, band by band, and dropped after use: between two
//! feature maps that are stored only a few bands are alive.

use std::cell::RefCell;
use std::collections::VecDeque;

use candle_core::{Result, Tensor};
use sd_ops::{Band, BandedConv2d, ChannelMoments, concatenate, contiguous, copied};

/// Bands of a feature map, from the top down.
pub(crate) type Rows<'a> = Box<dyn Iterator<Item = Result<Tensor>> + 'a>;

/// Bands of a residual that wait for the result of the layers that they bypass.
pub(crate) type Carried = RefCell<VecDeque<Tensor>>;

/// The means and variances of the channels of a feature map whose bands are `rows`.
pub(crate) fn moments(rows: Rows<'_>) -> Result<ChannelMoments> {
    let mut moments = ChannelMoments::default();
    for band in rows {
        moments.add(&band?)?;
    }
    Ok(moments)
}

/// The band that was put aside, or else the next of `rows`.
fn next_of(aside: &mut Option<Tensor>, rows: &mut Rows<'_>) -> Result<Option<Tensor>> {
    match aside.take() {
        Some(band) => Ok(Some(band)),
        None => rows.next().transpose(),
    }
}

/// `convolution` of `rows`, plus the bands of `onto` if given.
pub(crate) fn convolved<'a>(
    rows: Rows<'a>,
    convolution: BandedConv2d<'a>,
    onto: Option<&'a Carried>,
) -> Rows<'a> {
    Box::new(Convolved {
        rows,
        convolution,
        onto,
        above: None,
        next: None,
    })
}

struct Convolved<'a> {
    rows: Rows<'a>,
    convolution: BandedConv2d<'a>,
    onto: Option<&'a Carried>,
    /// The last row of the previous band.
    above: Option<Tensor>,
    /// The current band, if it was read ahead.
    next: Option<Tensor>,
}

impl Convolved<'_> {
    fn advance(&mut self) -> Result<Option<Tensor>> {
        let Some(rows) = next_of(&mut self.next, &mut self.rows)? else {
            return Ok(None);
        };
        self.next = self.rows.next().transpose()?;
        let onto = self.onto.and_then(|onto| onto.borrow_mut().pop_front());
        let band = Band {
            above: self.above.as_ref(),
            rows: &rows,
            below: self.next.as_ref(),
        };
        let result = self.convolution.rows(band, onto.as_ref())?;
        // Copied, so that the band itself can be dropped.
        self.above = Some(copied(&rows.narrow(2, rows.dim(2)? - 1, 1)?)?);
        Ok(Some(result))
    }
}

impl Iterator for Convolved<'_> {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// The same rows in bands of `height`, except for the last.
pub(crate) fn regrouped(rows: Rows<'_>, height: usize) -> Rows<'_> {
    Box::new(Regrouped {
        rows,
        height,
        rest: None,
    })
}

struct Regrouped<'a> {
    rows: Rows<'a>,
    height: usize,
    /// Rows that are left over.
    rest: Option<Tensor>,
}

impl Regrouped<'_> {
    fn advance(&mut self) -> Result<Option<Tensor>> {
        let (mut parts, mut wanted) = (Vec::new(), self.height);
        while wanted > 0 {
            let Some(band) = next_of(&mut self.rest, &mut self.rows)? else {
                break;
            };
            let rows = band.dim(2)?;
            if rows <= wanted {
                parts.push(band);
                wanted -= rows;
            } else {
                parts.push(band.narrow(2, 0, wanted)?);
                self.rest = Some(band.narrow(2, wanted, rows - wanted)?);
                wanted = 0;
            }
        }
        Ok(match parts.as_slice() {
            [] => None,
            [band] => Some(contiguous(band)?),
            parts => Some(concatenate(parts, 2)?),
        })
    }
}

impl Iterator for Regrouped<'_> {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
