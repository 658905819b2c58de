//! Networks that make a picture larger: those of Real-ESRGAN, which invent the detail that a larger picture
//! would have.
//!
//! Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021.
//! Which network a file holds, how wide and deep it is and by how much it enlarges is read from its tensors.
//!
//! A pixel of the result depends on pixels hundreds of rows away. Cutting the picture into tiles with such
//! margins would compute most of it several times, so pictures go through the layers by bands of rows
//! instead, from the top down, each band computed once. Held are the picture between two blocks, whose bands
//! are replaced by what is made of them, the picture that is carried around all blocks, and a few bands of
//! what lies between. No tile has an edge inside of the picture, and on a processor the result is that of the
//! whole picture at once, to the bit.

mod architecture;
mod compact;
mod dense;
mod footprint;
mod names;
mod pixels;

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use sd_weights::{Blocks, Weights};

use crate::bands::{Rows, regrouped};
use crate::footprint::held_bytes;
use crate::{Error, Footprint, Result};
use architecture::Architecture;

/// A network that makes a picture larger.
#[derive(Debug)]
pub struct Upscaler {
    blocks: Blocks<Block>,
    architecture: Architecture,
    activation_type: DType,
    weight_bytes: u64,
    band_rows: Option<usize>,
}

/// A part of a network.
#[derive(Debug)]
enum Block {
    Dense(dense::Block),
    Compact(compact::Block),
}

/// What goes from block to block: the bands of the picture, and those of the picture that is carried around
/// the blocks.
#[derive(Debug)]
struct State {
    bands: VecDeque<Tensor>,
    carried: VecDeque<Tensor>,
}

impl Upscaler {
    /// The network that `weights` are of. Nothing is read yet.
    ///
    /// # Errors
    /// They are of no network that is known ([`Error::Upscaler`]), or some of its tensors are missing or of
    /// another shape.
    pub fn open(weights: Weights) -> Result<Self> {
        let weights = names::as_real_esrgan(&weights);
        let architecture = Architecture::recognise(&weights)?;
        let activation_type = weights.options().activation_type();
        let weight_bytes = held_bytes(&weights, |_| true);
        let scopes = vec![weights; architecture.block_count()];
        let blocks = Blocks::new(scopes, move |index, weights| {
            Block::new(architecture, index, weights)
        })?;
        Ok(Self {
            blocks,
            architecture,
            activation_type,
            weight_bytes,
            band_rows: None,
        })
    }

    /// How many times as high and wide a picture becomes.
    pub fn scale(&self) -> usize {
        self.architecture.scale()
    }

    /// Reads the weights that stay in memory, so that the first image does not wait for them.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn load(&self) -> Result<()> {
        Ok(self.blocks.load()?)
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Takes so many rows at a time, at least one, instead of as many as the picture's size suggests. On a
    /// processor the result is the same to the bit; memory and time are not.
    #[must_use]
    pub fn with_band_rows(mut self, rows: usize) -> Self {
        self.band_rows = Some(rows.max(1));
        self
    }

    /// What enlarging a picture of `height` and `width` takes beside the picture and the weights, on a
    /// processor with as many threads as there are now.
    pub fn footprint(&self, height: usize, width: usize) -> Footprint {
        footprint::enlarging(self.architecture, self.band_rows, [height, width])
            .footprint(self.activation_type)
    }

    /// Makes `picture`, `[1, 3, height, width]` with values from 0 to 1, larger:
    /// `[1, 3, scale * height, scale * width]`, around the same values; a few may lie outside of them.
    ///
    /// # Errors
    /// The picture has another shape, a file is wrong, or the device fails.
    pub fn forward(&self, picture: &Tensor) -> Result<Tensor> {
        let (height, width) = match *picture.dims() {
            [1, 3, height, width] if height * width > 0 => (height, width),
            _ => {
                return Err(Error::Input {
                    network: "upscaler",
                    found: format!("{:?}", picture.dims()),
                    wanted: "one picture, [1, 3, height, width]".to_owned(),
                });
            }
        };
        let factor = self.architecture.unshuffled();
        let x = pixels::unshuffled(&picture.to_dtype(self.activation_type)?, factor)?;
        let (_, _, inner_height, inner_width) = x.dims4()?;
        let rows = self
            .band_rows
            .unwrap_or_else(|| footprint::band_rows(self.architecture.features(), inner_height, inner_width));
        let whole: Rows<'_> = Box::new(std::iter::once(Ok(x)));
        let mut state = State {
            bands: regrouped(whole, rows).collect::<candle_core::Result<_>>()?,
            carried: VecDeque::new(),
        };
        for block in self.blocks.pass()? {
            state = block?.forward(state)?;
        }
        let bands = Vec::from(state.bands);
        let result = Tensor::cat(&bands, 2)?;
        drop(bands);
        let scale = self.scale();
        if result.dims4()? == (1, 3, scale * height, scale * width) {
            return Ok(result);
        }
        // The picture was continued so that it could be unshuffled.
        let result = result.narrow(2, 0, scale * height)?.narrow(3, 0, scale * width)?;
        Ok(result.contiguous()?)
    }
}

impl Block {
    fn new(architecture: Architecture, index: usize, weights: &Weights) -> sd_weights::Result<Self> {
        match architecture {
            Architecture::Dense(sizes) => Ok(Self::Dense(dense::Block::new(sizes, index, weights)?)),
            Architecture::Compact(sizes) => Ok(Self::Compact(compact::Block::new(sizes, index, weights)?)),
        }
    }

    fn forward(&self, state: State) -> candle_core::Result<State> {
        match self {
            Self::Dense(block) => block.forward(state),
            Self::Compact(block) => block.forward(state),
        }
    }
}

/// The bands of a picture, each of which goes once it was used.
fn into_rows<'a>(bands: VecDeque<Tensor>) -> Rows<'a> {
    Box::new(bands.into_iter().map(Ok))
}
