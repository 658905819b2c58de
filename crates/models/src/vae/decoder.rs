//! From latents to a picture.

use candle_core::Tensor;
use sd_ops::{Conv2d, GroupNorm, conv2d, group_norm_silu, upsample_nearest};
use sd_weights::{Blocks, Weights};

use super::config::{Config, NORM_EPSILON};
use super::residual::{MiddleBlock, ResidualBlock};
use crate::{Error, Result, layers};

/// The decoder of an autoencoder.
#[derive(Debug)]
pub struct Decoder {
    blocks: Blocks<Block>,
    activation_type: candle_core::DType,
    latent_channels: usize,
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
        residuals: Vec<ResidualBlock>,
        upsampler: Option<Conv2d>,
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
    /// The configuration cannot be used.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let levels = config.block_out_channels.len();
        let activation_type = weights.holding().activation_type();
        let config = config.clone();
        let latent_channels = config.latent_channels;
        let scopes = vec![weights; levels + 2];
        let blocks = Blocks::new(scopes, move |index, weights| Block::new(index, weights, &config));
        Ok(Self {
            blocks,
            activation_type,
            latent_channels,
        })
    }

    /// Decodes `latents`, `[batch, latent_channels, height, width]`, to pictures,
    /// `[batch, 3, factor * height, factor * width]` with values from -1 to 1.
    ///
    /// # Errors
    /// The latents have another shape, a file is wrong, or the device fails.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let (_, channels, _, _) = latents.dims4()?;
        if channels != self.latent_channels {
            return Err(Error::Input {
                network: "decoder",
                found: format!("latents of {channels} channels"),
                wanted: self.latent_channels.to_string(),
            });
        }
        let mut x = latents.to_dtype(self.activation_type)?;
        for block in self.blocks.pass()? {
            x = block?.forward(&x)?;
        }
        Ok(x)
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
        let weights = decoder.scope("up_blocks").scope(level);
        let (inputs, outputs) = (levels[level.saturating_sub(1)], levels[level]);
        let residuals = (0..=config.layers_per_block).map(|layer| {
            let inputs = if layer == 0 { inputs } else { outputs };
            ResidualBlock::new(&weights.scope("resnets").scope(layer), groups, inputs, outputs)
        });
        Ok(Self::Level {
            residuals: residuals.collect::<sd_weights::Result<_>>()?,
            upsampler: if level + 1 < levels.len() {
                Some(layers::conv2d(
                    &weights.scope("upsamplers.0.conv"),
                    outputs,
                    outputs,
                    3,
                    1,
                    1,
                )?)
            } else {
                None
            },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Entry {
                post_quant,
                conv,
                middle,
            } => {
                let x = post_quant
                    .as_ref()
                    .map_or_else(|| Ok(x.clone()), |post_quant| conv2d(x, post_quant))?;
                middle.forward(&conv2d(&x, conv)?)?
            }
            Self::Level { residuals, upsampler } => {
                let mut x = x.clone();
                for residual in residuals {
                    x = residual.forward(&x)?;
                }
                match upsampler {
                    Some(conv) => conv2d(&upsample_nearest(&x)?, conv)?,
                    None => x,
                }
            }
            Self::Exit { norm, conv } => conv2d(&group_norm_silu(x, norm)?, conv)?,
        })
    }
}
