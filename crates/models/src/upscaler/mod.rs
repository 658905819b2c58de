//! Super-resolution networks: those of Real-ESRGAN.
//!
//! Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021. The
//! architecture, its sizes and the scale are recognised by the tensors of a file.
//!
//! An output pixel depends on pixels hundreds of rows away. Tiles with such margins would compute most of an
//! image several times. Instead, images pass through the layers in bands of rows, from the top down, and each
//! band is computed once. Memory holds the feature map between two blocks, whose bands are replaced one by
//! one, the feature map that bypasses all blocks, and a few bands in between. There are no seams of tiles,
//! and on a CPU the result has the bits of the whole image at once.

mod architecture;
mod compact;
mod dense;
mod footprint;
mod names;
mod pixels;
mod work;

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use sd_ops::{concatenate, contiguous};
use sd_weights::{Blocks, Weights};

use crate::bands::{Rows, regrouped};
use crate::footprint::held_bytes;
use crate::{Error, Footprint, Result};
use architecture::Architecture;

/// A super-resolution network.
#[derive(Debug)]
pub struct Upscaler {
    blocks: Blocks<Block>,
    architecture: Architecture,
    activation_type: DType,
    weight_bytes: u64,
    band_rows: Option<usize>,
}

/// A block of a network.
#[derive(Debug)]
enum Block {
    Dense(dense::Block),
    Compact(compact::Block),
}

/// The state between blocks: the bands of the feature map, and those of the one that bypasses the blocks.
#[derive(Debug)]
struct State {
    bands: VecDeque<Tensor>,
    carried: VecDeque<Tensor>,
}

impl Upscaler {
    /// Recognises the network of `weights`. It reads no weights yet.
    ///
    /// # Errors
    /// The architecture is not supported ([`Error::Upscaler`]), or tensors are missing or have other shapes.
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

    /// The factor of an image's width and height.
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

    /// Sets the rows of a band, at least one, instead of the default for the image's size. On a CPU the
    /// result has the same bits; memory and time differ.
    #[must_use]
    pub fn with_band_rows(mut self, rows: usize) -> Self {
        self.band_rows = Some(rows.max(1));
        self
    }

    /// The memory of upscaling an image of `height` and `width`, beside the image and the weights, on a CPU
    /// with the current number of threads.
    pub fn footprint(&self, height: usize, width: usize) -> Footprint {
        footprint::upscaling(self.architecture, self.band_rows, [height, width])
            .footprint(self.activation_type)
    }

    /// Upscales `image`, `[1, 3, height, width]` with values from 0 to 1, to
    /// `[1, 3, scale * height, scale * width]`, with about the same range; a few values may exceed it.
    ///
    /// # Errors
    /// The image has another shape, a file is damaged, or the device fails.
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let (height, width) = match *image.dims() {
            [1, 3, height, width] if height * width > 0 => (height, width),
            _ => {
                return Err(Error::Input {
                    network: "upscaler",
                    found: format!("{:?}", image.dims()),
                    wanted: "one image, [1, 3, height, width]".to_owned(),
                });
            }
        };
        let factor = self.architecture.unshuffled();
        let x = pixels::unshuffled(&image.to_dtype(self.activation_type)?, factor)?;
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
        let result = concatenate(&bands, 2)?;
        drop(bands);
        let scale = self.scale();
        if result.dims4()? == (1, 3, scale * height, scale * width) {
            return Ok(result);
        }
        // The image was padded for pixel unshuffling.
        let result = result.narrow(2, 0, scale * height)?.narrow(3, 0, scale * width)?;
        Ok(contiguous(&result)?)
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

/// The bands of a feature map, each of which is dropped after use.
fn into_rows<'a>(bands: VecDeque<Tensor>) -> Rows<'a> {
    Box::new(bands.into_iter().map(Ok))
}
