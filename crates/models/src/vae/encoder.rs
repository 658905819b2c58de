//! The encoder: from an image to the distribution of its latents.

use candle_core::Tensor;
use sd_ops::{BandedConv2d, Conv2d, GroupNorm, conv2d, converted};
use sd_weights::Weights;

use super::banded::{BandedTensor, Banding};
use super::coder::{Coder, CoderBlock};
use super::config::{Config, NORM_EPSILON};
use super::footprint;
use super::middle::MiddleBlock;
use super::residual::ResidualBlock;
use super::work;
use crate::bands::{convolved, moments};
use crate::{Error, Footprint, Result, Work, layers};

/// The encoder of an autoencoder.
#[derive(Debug)]
pub struct Encoder {
    coder: Coder<Block>,
}

/// The distribution of an image's latents, `[batch, latent_channels, height, width]` both.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The mean.
    pub mean: Tensor,
    /// The logarithm of the variance, clamped to -30 and 20.
    pub log_variance: Tensor,
}

/// The encoder's blocks, in the order of its forward pass.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are a handful of blocks, one of them the largest"
)]
enum Block {
    Entry {
        conv: Conv2d,
    },
    Level {
        residuals: Vec<ResidualBlock>,
        downsampler: Option<Conv2d>,
    },
    Exit {
        middle: MiddleBlock,
        norm: GroupNorm,
        conv: Conv2d,
        quant: Option<Conv2d>,
    },
}

impl Encoder {
    /// The encoder that `config` describes, with `weights` of the whole autoencoder. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let coder = Coder::new(weights, config, ["encoder.", "quant_conv."])?;
        Ok(Self { coder })
    }

    /// Reads the weights that stay in memory, so that the first image does not wait for them.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn load(&self) -> Result<()> {
        self.coder.load()
    }

    /// Sets another banding than the default for an image's size.
    #[must_use]
    pub fn with_banding(mut self, banding: Banding) -> Self {
        self.coder.banding = Some(banding);
        self
    }

    /// Bytes of the weights that encoding reads.
    pub fn weight_bytes(&self) -> u64 {
        self.coder.weight_bytes
    }

    /// The memory of encoding `batch` images whose latents have `height` and `width`, beside the images and
    /// the weights, on a CPU with the current number of threads.
    pub fn footprint(&self, batch: usize, height: usize, width: usize) -> Footprint {
        let banding = self.coder.banding(batch, height, width);
        footprint::encoding(
            &self.coder.config,
            banding,
            self.coder.kernels(),
            [batch, height, width],
        )
        .footprint(self.coder.activation_type)
    }

    /// The arithmetic of encoding an image whose latents have `height` and `width`.
    pub fn work(&self, height: usize, width: usize) -> Work {
        work::encoding(&self.coder.config, height, width)
    }

    /// Encodes `image`, `[batch, 3, height, width]` with values from -1 to 1 and sides that are multiples of
    /// [`Config::downsampling`].
    ///
    /// # Errors
    /// The image has another shape, a file is damaged, or the device fails.
    pub fn encode(&self, image: &Tensor) -> Result<Encoded> {
        let ((batch, _, height, width), factor) = (image.dims4()?, self.coder.config.downsampling());
        if height % factor != 0 || width % factor != 0 {
            return Err(Error::Input {
                network: "encoder",
                found: format!("an image of {width}x{height}"),
                wanted: format!("sides that are multiples of {factor}"),
            });
        }
        let banding = self.coder.banding(batch, height / factor, width / factor);
        let image = converted(image, self.coder.activation_type)?;
        let first = self.coder.config.block_out_channels[0];
        let x = BandedTensor::split(image, first, banding)?;
        let x = self.coder.forward(x)?;
        let parts = x.chunk(2, 1)?;
        Ok(Encoded {
            mean: parts[0].clone(),
            log_variance: parts[1].clamp(-30.0, 20.0)?,
        })
    }
}

impl CoderBlock for Block {
    fn new(index: usize, weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let encoder = weights.scope("encoder");
        let (levels, groups) = (&config.block_out_channels, config.norm_num_groups);
        if index == 0 {
            let conv = layers::conv2d(&encoder.scope("conv_in"), config.in_channels, levels[0], 3, 1, 1)?;
            return Ok(Self::Entry { conv });
        }
        let level = index - 1;
        if level == levels.len() {
            let (channels, moments) = (levels[level - 1], 2 * config.latent_channels);
            return Ok(Self::Exit {
                middle: MiddleBlock::new(&encoder.scope("mid_block"), config, channels)?,
                norm: layers::group_norm(&encoder.scope("conv_norm_out"), groups, channels, NORM_EPSILON)?,
                conv: layers::conv2d(&encoder.scope("conv_out"), channels, moments, 3, 1, 1)?,
                quant: if config.use_quant_conv {
                    Some(layers::conv2d(
                        &weights.scope("quant_conv"),
                        moments,
                        moments,
                        1,
                        1,
                        0,
                    )?)
                } else {
                    None
                },
            });
        }
        let weights = encoder.scope("down_blocks").scope(level);
        let (inputs, outputs) = (levels[level.saturating_sub(1)], levels[level]);
        let residuals = (0..config.layers_per_block).map(|layer| {
            let inputs = if layer == 0 { inputs } else { outputs };
            ResidualBlock::new(&weights.scope("resnets").scope(layer), groups, inputs, outputs)
        });
        Ok(Self::Level {
            residuals: residuals.collect::<sd_weights::Result<_>>()?,
            downsampler: if level + 1 < levels.len() {
                let weights = weights.scope("downsamplers.0.conv");
                // Padded on the right and below only.
                Some(layers::conv2d(&weights, outputs, outputs, 3, 2, 0)?.padded_after(1))
            } else {
                None
            },
        })
    }

    fn forward(&self, x: BandedTensor) -> candle_core::Result<BandedTensor> {
        match self {
            Self::Entry { conv } => {
                let banding = x.banding();
                BandedTensor::hold(convolved(x.into_rows(), BandedConv2d::new(conv)?, None), banding)
            }
            Self::Level {
                residuals,
                downsampler,
            } => {
                let mut x = x;
                for residual in residuals {
                    x = residual.forward(x)?;
                }
                x.downsampled(downsampler.as_ref())
            }
            Self::Exit {
                middle,
                norm,
                conv,
                quant,
            } => {
                let x = middle.forward(x)?;
                let (banding, moments) = (x.banding(), moments(x.rows())?);
                let exit = BandedConv2d::after_norm_silu(conv, norm, &moments)?;
                let x = BandedTensor::hold(convolved(x.into_rows(), exit, None), banding)?.joined()?;
                let x = quant.as_ref().map_or(Ok(x.clone()), |quant| conv2d(&x, quant))?;
                Ok(BandedTensor::whole(x, banding))
            }
        }
    }
}
