//! RRDBNet. Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", 2018.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use candle_core::{Result, Tensor};
use sd_ops::{BandedConv2d, Conv2d, concatenate, leaky_relu, scaled_residual};
use sd_weights::Weights;

use super::architecture::Dense;
use super::{State, into_rows};
use crate::bands::{Carried, Rows, convolved};
use crate::layers;

const SLOPE: f32 = 0.2;
/// The factor of a block's residual.
const RESIDUAL: f32 = 0.2;

/// A block of the network.
#[derive(Debug)]
pub(super) enum Block {
    First(Conv2d),
    /// A residual-in-residual dense block (RRDB).
    Residual(Box<[DenseBlock; 3]>),
    Last(Box<Last>),
}

/// A residual dense block: each convolution takes the results of all before it.
#[derive(Debug)]
pub(super) struct DenseBlock {
    growing: [Conv2d; 4],
    last: Conv2d,
}

/// The layers after the blocks: a convolution, the skip connection from the first features, two upsampling
/// convolutions of factor 2, and two more convolutions.
#[derive(Debug)]
pub(super) struct Last {
    body: Conv2d,
    up1: Conv2d,
    up2: Conv2d,
    hidden: Conv2d,
    last: Conv2d,
}

impl Block {
    pub(super) fn new(sizes: Dense, index: usize, weights: &Weights) -> sd_weights::Result<Self> {
        let Dense {
            features,
            blocks,
            unshuffled,
            ..
        } = sizes;
        let conv =
            |name: &str, inputs, outputs| layers::conv2d(&weights.scope(name), inputs, outputs, 3, 1, 1);
        if index == 0 {
            let channels = 3 * unshuffled * unshuffled;
            return Ok(Self::First(conv("conv_first", channels, features)?));
        }
        if index <= blocks {
            let block = weights.scope("body").scope(index - 1);
            let dense = |name: &str| DenseBlock::new(sizes, &block.scope(name));
            return Ok(Self::Residual(Box::new([
                dense("rdb1")?,
                dense("rdb2")?,
                dense("rdb3")?,
            ])));
        }
        Ok(Self::Last(Box::new(Last {
            body: conv("conv_body", features, features)?,
            up1: conv("conv_up1", features, features)?,
            up2: conv("conv_up2", features, features)?,
            hidden: conv("conv_hr", features, features)?,
            last: conv("conv_last", features, 3)?,
        })))
    }

    pub(super) fn forward(&self, state: State) -> Result<State> {
        let State { bands, carried } = state;
        match self {
            Self::First(conv) => {
                let bands = convolved(into_rows(bands), BandedConv2d::new(conv)?, None);
                let bands: VecDeque<Tensor> = bands.collect::<Result<_>>()?;
                Ok(State {
                    carried: bands.clone(),
                    bands,
                })
            }
            Self::Residual(blocks) => {
                let (rows, around) = watched(into_rows(bands));
                let rows = blocks.iter().try_fold(rows, |rows, block| block.forward(rows))?;
                Ok(State {
                    bands: added(rows, around).collect::<Result<_>>()?,
                    carried,
                })
            }
            Self::Last(last) => Ok(State {
                bands: last.forward(into_rows(bands), &RefCell::new(carried))?,
                carried: VecDeque::new(),
            }),
        }
    }
}

impl DenseBlock {
    fn new(sizes: Dense, weights: &Weights) -> sd_weights::Result<Self> {
        let Dense { features, growth, .. } = sizes;
        let conv = |index: usize, outputs| {
            let inputs = features + (index - 1) * growth;
            layers::conv2d(&weights.scope(format!("conv{index}")), inputs, outputs, 3, 1, 1)
        };
        Ok(Self {
            growing: [
                conv(1, growth)?,
                conv(2, growth)?,
                conv(3, growth)?,
                conv(4, growth)?,
            ],
            last: conv(5, features)?,
        })
    }

    fn forward<'a>(&'a self, rows: Rows<'a>) -> Result<Rows<'a>> {
        let (rows, around) = watched(rows);
        let grown = self.growing.iter().try_fold(rows, grown)?;
        Ok(added(
            convolved(grown, BandedConv2d::new(&self.last)?, None),
            around,
        ))
    }
}

impl Last {
    fn forward(&self, rows: Rows<'_>, carried: &Carried) -> Result<VecDeque<Tensor>> {
        let rows = convolved(rows, BandedConv2d::new(&self.body)?, Some(carried));
        let rows = activated(convolved(rows, BandedConv2d::after_upsampling(&self.up1)?, None));
        let rows = activated(convolved(rows, BandedConv2d::after_upsampling(&self.up2)?, None));
        let rows = activated(convolved(rows, BandedConv2d::new(&self.hidden)?, None));
        convolved(rows, BandedConv2d::new(&self.last)?, None).collect()
    }
}

/// Bands that were passed on, until they are taken.
type Waiting = Rc<RefCell<VecDeque<Tensor>>>;

/// Passes `rows` through and keeps each of them.
fn watched(rows: Rows<'_>) -> (Rows<'_>, Waiting) {
    let waiting = Waiting::default();
    let theirs = waiting.clone();
    let rows = rows.map(move |band| {
        let band = band?;
        theirs.borrow_mut().push_back(band.clone());
        Ok(band)
    });
    (Box::new(rows), waiting)
}

fn next_of(waiting: &Waiting) -> Result<Tensor> {
    let band = waiting.borrow_mut().pop_front();
    band.ok_or_else(|| {
        candle_core::Error::Msg("a band came out that never went in. This is a bug.".to_owned())
    })
}

/// `rows`, each followed by its convolution with `conv`.
fn grown<'a>(rows: Rows<'a>, conv: &'a Conv2d) -> Result<Rows<'a>> {
    let (rows, before) = watched(rows);
    let grown = activated(convolved(rows, BandedConv2d::new(conv)?, None));
    Ok(Box::new(grown.map(move |band| {
        let band = band?;
        concatenate(&[next_of(&before)?, band], 1)
    })))
}

/// Scaled `rows`, added to the residual `around` them.
fn added<'a>(rows: Rows<'a>, around: Waiting) -> Rows<'a> {
    Box::new(rows.map(move |band| scaled_residual(&next_of(&around)?, RESIDUAL, &band?)))
}

fn activated(rows: Rows<'_>) -> Rows<'_> {
    Box::new(rows.map(|band| leaky_relu(&band?, SLOPE)))
}
