//! From latents to a picture.

use candle_core::{DType, Tensor};
use sd_ops::{BandedConv2d, Conv2d, GroupNorm, conv2d};
use sd_weights::{Blocks, Weights};

use super::config::{Config, NORM_EPSILON};
use super::footprint;
use super::middle::MiddleBlock;
use super::picture::{Banding, Input, Picture};
use super::residual::ResidualBlock;
use crate::bands::{convolved, moments};
use crate::footprint::held_bytes;
use crate::{Error, Footprint, Result, layers};

/// The decoder of an autoencoder.
#[derive(Debug)]
pub struct Decoder {
    blocks: Blocks<Block>,
    activation_type: DType,
    config: Config,
    banding: Option<Banding>,
    weight_bytes: u64,
}

/// The decoder's parts, in order.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a handful of blocks, one of them the largest"
)]
enum Block {
    Entry {
        post_quant: Option<Conv2d>,
        conv: Conv2d,
        middle: MiddleBlock,
    },
    Level {
        /// What makes the level below into the first input of this one.
        upsampler: Option<Conv2d>,
        residuals: Vec<ResidualBlock>,
    },
    Exit {
        norm: GroupNorm,
        conv: Conv2d,
    },
}

impl Decoder {
    /// The decoder that `config` describes, with `weights` of the whole autoencoder. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let levels = config.block_out_channels.len();
        let activation_type = weights.options().activation_type();
        let weight_bytes = held_bytes(&weights, |name| {
            name.starts_with("decoder.") || name.starts_with("post_quant_conv.")
        });
        let scopes = vec![weights; levels + 2];
        let of_blocks = config.clone();
        let blocks = Blocks::new(scopes, move |index, weights| {
            Block::new(index, weights, &of_blocks)
        })?;
        Ok(Self {
            blocks,
            activation_type,
            config: config.clone(),
            banding: None,
            weight_bytes,
        })
    }

    /// Reads the weights that stay in memory, so that the first image does not wait for them.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn load(&self) -> Result<()> {
        Ok(self.blocks.load()?)
    }

    /// Bytes of the weights that decoding uses.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Cuts pictures in another way than the one chosen from their sizes.
    #[must_use]
    pub fn with_banding(mut self, banding: Banding) -> Self {
        self.banding = Some(banding);
        self
    }

    /// What decoding `batch` latents of `height` and `width` takes beside these and the weights, on a
    /// processor with as many threads as there are now.
    pub fn footprint(&self, batch: usize, height: usize, width: usize) -> Footprint {
        let banding = self.banding(batch, height, width);
        footprint::decoding(&self.config, banding, [batch, height, width]).footprint(self.activation_type)
    }

    fn banding(&self, batch: usize, height: usize, width: usize) -> Banding {
        let by_size = || self.config.banding(batch, height, width);
        self.banding.unwrap_or_else(by_size)
    }

    /// Decodes `latents`, `[batch, latent_channels, height, width]`, to pictures,
    /// `[batch, 3, factor * height, factor * width]` with values from -1 to 1.
    ///
    /// # Errors
    /// The latents have another shape, a file is wrong, or the device fails.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = latents.dims4()?;
        if channels != self.config.latent_channels {
            return Err(Error::Input {
                network: "decoder",
                found: format!("latents of {channels} channels"),
                wanted: self.config.latent_channels.to_string(),
            });
        }
        let banding = self.banding(batch, height, width);
        let mut x = Picture::whole(latents.to_dtype(self.activation_type)?, banding);
        for block in self.blocks.pass()? {
            x = block?.forward(x)?;
        }
        Ok(x.joined()?)
    }
}

impl Block {
    /// Block 0 is the entry, the last one the exit; between them the levels from the lowest resolution up.
    fn new(index: usize, weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let decoder = weights.scope("decoder");
        let levels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let groups = config.norm_num_groups;
        if index == 0 {
            let latent = config.latent_channels;
            return Ok(Self::Entry {
                post_quant: if config.use_post_quant_conv {
                    Some(layers::conv2d(
                        &weights.scope("post_quant_conv"),
                        latent,
                        latent,
                        1,
                        1,
                        0,
                    )?)
                } else {
                    None
                },
                conv: layers::conv2d(&decoder.scope("conv_in"), latent, levels[0], 3, 1, 1)?,
                middle: MiddleBlock::new(&decoder.scope("mid_block"), config, levels[0])?,
            });
        }
        let level = index - 1;
        if level == levels.len() {
            let channels = levels[level - 1];
            return Ok(Self::Exit {
                norm: layers::group_norm(&decoder.scope("conv_norm_out"), groups, channels, NORM_EPSILON)?,
                conv: layers::conv2d(&decoder.scope("conv_out"), channels, config.out_channels, 3, 1, 1)?,
            });
        }
        let blocks = decoder.scope("up_blocks");
        let (inputs, outputs) = (levels[level.saturating_sub(1)], levels[level]);
        let residuals = (0..=config.layers_per_block).map(|layer| {
            let weights = blocks.scope(level).scope("resnets").scope(layer);
            ResidualBlock::new(
                &weights,
                groups,
                if layer == 0 { inputs } else { outputs },
                outputs,
            )
        });
        Ok(Self::Level {
            upsampler: match level.checked_sub(1) {
                Some(below) => {
                    let weights = blocks.scope(below).scope("upsamplers.0.conv");
                    Some(layers::conv2d(&weights, inputs, inputs, 3, 1, 1)?)
                }
                None => None,
            },
            residuals: residuals.collect::<sd_weights::Result<_>>()?,
        })
    }

    fn forward(&self, x: Picture) -> candle_core::Result<Picture> {
        match self {
            Self::Entry {
                post_quant,
                conv,
                middle,
            } => {
                let banding = x.banding();
                let x = match post_quant {
                    Some(post_quant) => conv2d(&x.joined()?, post_quant)?,
                    None => x.joined()?,
                };
                let rows = Picture::cut(x, conv.out_channels(), banding)?.into_rows();
                middle.forward(Picture::hold(
                    convolved(rows, BandedConv2d::new(conv)?, None),
                    banding,
                )?)
            }
            Self::Level { upsampler, residuals } => {
                let mut x = Input::new(x, upsampler.as_ref());
                for residual in residuals {
                    x = residual.forward(x)?.into();
                }
                x.held()
            }
            Self::Exit { norm, conv } => {
                let (banding, moments) = (x.banding(), moments(x.rows())?);
                let exit = BandedConv2d::after_norm_silu(conv, norm, &moments)?;
                Picture::hold(convolved(x.into_rows(), exit, None), banding)
            }
        }
    }
}
