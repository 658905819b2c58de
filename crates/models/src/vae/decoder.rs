//! The decoder: from latents to an image.

use candle_core::Tensor;
use sd_ops::{BandedConv2d, Conv2d, GroupNorm, conv2d, converted};
use sd_weights::Weights;

use super::banded::{BandedTensor, Banding, Input};
use super::coder::{Coder, CoderBlock};
use super::config::{Config, NORM_EPSILON};
use super::footprint;
use super::middle::MiddleBlock;
use super::residual::ResidualBlock;
use super::work;
use crate::bands::{convolved, moments};
use crate::{Error, Footprint, Result, Work, layers};

/// The decoder of an autoencoder.
#[derive(Debug)]
pub struct Decoder {
    coder: Coder<Block>,
}

/// The decoder's blocks, in the order of its forward pass.
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
        /// Upsamples the result of the level below.
        upsampler: Option<Conv2d>,
        residuals: Vec<ResidualBlock>,
    },
    Exit {
        norm: GroupNorm,
        conv: Conv2d,
    },
}

impl Decoder {
    /// The decoder that `config` describes, with `weights` of the whole autoencoder. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let coder = Coder::new(weights, config, ["decoder.", "post_quant_conv."])?;
        Ok(Self { coder })
    }

    /// Reads the weights that stay in memory, so that the first image does not wait for them.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn load(&self) -> Result<()> {
        self.coder.load()
    }

    /// Bytes of the weights that decoding reads.
    pub fn weight_bytes(&self) -> u64 {
        self.coder.weight_bytes
    }

    /// Sets another banding than the default for an image's size.
    #[must_use]
    pub fn with_banding(mut self, banding: Banding) -> Self {
        self.coder.banding = Some(banding);
        self
    }

    /// The memory of decoding `batch` latents of `height` and `width`, beside the latents and the weights, on
    /// a CPU with the current number of threads.
    pub fn footprint(&self, batch: usize, height: usize, width: usize) -> Footprint {
        let banding = self.coder.banding(batch, height, width);
        footprint::decoding(
            &self.coder.config,
            banding,
            self.coder.kernels(),
            [batch, height, width],
        )
        .footprint(self.coder.activation_type)
    }

    /// The arithmetic of decoding latents of `height` and `width`.
    pub fn work(&self, height: usize, width: usize) -> Work {
        work::decoding(&self.coder.config, height, width)
    }

    /// Decodes `latents`, `[batch, latent_channels, height, width]`, to images,
    /// `[batch, 3, factor * height, factor * width]` with values from -1 to 1.
    ///
    /// # Errors
    /// The latents have another shape, a file is damaged, or the device fails.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = latents.dims4()?;
        if channels != self.coder.config.latent_channels {
            return Err(Error::Input {
                network: "decoder",
                found: format!("latents of {channels} channels"),
                wanted: self.coder.config.latent_channels.to_string(),
            });
        }
        let banding = self.coder.banding(batch, height, width);
        let x = BandedTensor::whole(converted(latents, self.coder.activation_type)?, banding);
        self.coder.forward(x)
    }
}

impl CoderBlock for Block {
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

    fn forward(&self, x: BandedTensor) -> candle_core::Result<BandedTensor> {
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
                let rows = BandedTensor::split(x, conv.out_channels(), banding)?.into_rows();
                middle.forward(BandedTensor::hold(
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
                BandedTensor::hold(convolved(x.into_rows(), exit, None), banding)
            }
        }
    }
}
