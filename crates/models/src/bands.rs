//! Bands of rows that come one after another.
//!
//! What a convolution takes is made just before it, a band at a time, and what has been taken is dropped:
//! between two pictures that are held there are never more than a few bands.

use std::cell::RefCell;
use std::collections::VecDeque;

use candle_core::{Result, Tensor};
use sd_ops::{Band, BandedConv2d, ChannelMoments};

/// Bands that come one after another, from the top of a picture down.
pub(crate) type Rows<'a> = Box<dyn Iterator<Item = Result<Tensor>> + 'a>;

/// Bands that wait for what is to be added to them.
pub(crate) type Carried = RefCell<VecDeque<Tensor>>;

/// The means and variances of the channels of the picture whose bands `rows` gives.
pub(crate) fn moments(rows: Rows<'_>) -> Result<ChannelMoments> {
    let mut moments = ChannelMoments::default();
    for band in rows {
        moments.add(&band?)?;
    }
    Ok(moments)
}

/// What was put aside, or else the next of `rows`.
fn next_of(aside: &mut Option<Tensor>, rows: &mut Rows<'_>) -> Result<Option<Tensor>> {
    match aside.take() {
        Some(band) => Ok(Some(band)),
        None => rows.next().transpose(),
    }
}

/// What `convolution` makes of each of `rows`, added to those of `onto` where there are such.
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
    /// The last row of the band before.
    above: Option<Tensor>,
    /// The band whose turn it is, if it was needed before its turn.
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
        // A copy, so that the band itself can go.
        self.above = Some(rows.narrow(2, rows.dim(2)? - 1, 1)?.force_contiguous()?);
        Ok(Some(result))
    }
}

impl Iterator for Convolved<'_> {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// The same rows in bands of `height`, but for the last.
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
    /// What was not given yet.
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
            [band] => Some(band.contiguous()?),
            parts => Some(Tensor::cat(parts, 2)?),
        })
    }
}

impl Iterator for Regrouped<'_> {
    type Item = Result<Tensor>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
