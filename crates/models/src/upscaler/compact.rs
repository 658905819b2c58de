//! SRVGGNetCompact: convolutions with PReLU at the resolution of the image, then pixel shuffling, added to
//! the upsampled image.

use std::collections::VecDeque;

use candle_core::{Result, Tensor};
use sd_ops::{BandedConv2d, Conv2d, prelu};
use sd_weights::Weights;

use super::architecture::Compact;
use super::pixels::shuffled;
use super::{State, into_rows};
use crate::bands::convolved;
use crate::layers;

/// A convolution and its PReLU.
#[derive(Debug)]
pub(super) struct Block {
    first: bool,
    conv: Conv2d,
    after: After,
}

#[derive(Debug)]
enum After {
    Slopes(Tensor),
    Pixels { scale: usize },
}

impl Block {
    pub(super) fn new(sizes: Compact, index: usize, weights: &Weights) -> sd_weights::Result<Self> {
        let Compact {
            features,
            convolutions,
            scale,
        } = sizes;
        let body = weights.scope("body");
        let last = index + 1 == convolutions;
        let inputs = if index == 0 { 3 } else { features };
        let outputs = if last { 3 * scale * scale } else { features };
        Ok(Self {
            first: index == 0,
            conv: layers::conv2d(&body.scope(2 * index), inputs, outputs, 3, 1, 1)?,
            after: if last {
                After::Pixels { scale }
            } else {
                After::Slopes(body.scope(2 * index + 1).tensor("weight", &[features])?)
            },
        })
    }

    pub(super) fn forward(&self, state: State) -> Result<State> {
        let State { bands, mut carried } = state;
        if self.first {
            carried = bands.clone();
        }
        let rows = convolved(into_rows(bands), BandedConv2d::new(&self.conv)?, None);
        let bands = match &self.after {
            After::Slopes(slopes) => rows
                .map(|band| prelu(&band?, slopes))
                .collect::<Result<VecDeque<_>>>(),
            After::Pixels { scale } => rows
                .zip(carried.drain(..))
                .map(|(band, image)| shuffled(&(band? + repeated(&image, scale * scale)?)?, *scale))
                .collect(),
        };
        Ok(State {
            bands: bands?,
            carried,
        })
    }
}

/// Repeats each channel of `x`, `[1, channels, height, width]`, `times` times, which pixel shuffling turns
/// into nearest-neighbour upsampling.
fn repeated(x: &Tensor, times: usize) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    x.reshape((channels, 1, height, width))?
        .broadcast_as((channels, times, height, width))?
        .reshape((1, channels * times, height, width))
}
