//! A block of the network, and the feature maps that pass through the blocks.

use candle_core::{Result, Tensor};
use sd_ops::{Conv2d, GroupNorm, broadcast_sum, concatenate, conv2d, group_norm_silu, sum};
use sd_weights::Weights;

use super::block_layout::{BlockKind, BlockSpec};
use super::conditions::AtStep;
use super::config::Config;
use super::residual::ResidualBlock;
use super::sampling::{Upsampler, downsampler};
use super::transformer::{TransformerEntry, TransformerExit, TransformerLayer};
use crate::layers;

/// A block of the network.
#[derive(Debug)]
pub(crate) enum Block {
    /// The first convolution, or a downsampling one.
    Convolution(Conv2d),
    Residual(Box<ResidualBlock>),
    TransformerEntry(TransformerEntry),
    TransformerLayer(Box<TransformerLayer>),
    TransformerExit(TransformerExit),
    Upsampler(Upsampler),
    Exit {
        norm: GroupNorm,
        conv: Conv2d,
    },
}

/// The feature maps of one input between two blocks.
#[derive(Debug)]
pub(crate) struct Stream {
    /// `[texts, channels, height, width]`, or tokens inside a transformer,
    /// `[texts, height * width, channels]`.
    pub(crate) x: Tensor,
    /// The feature map from which the tokens inside a transformer were made: its residual.
    carried: Option<Tensor>,
    /// The skip connections: feature maps for the up path, the last one on top.
    skips: Vec<Tensor>,
}

impl Stream {
    pub(crate) fn new(x: Tensor) -> Self {
        Self {
            x,
            carried: None,
            skips: Vec::new(),
        }
    }

    /// Keeps the current feature map for the up path.
    pub(crate) fn push_skip(&mut self) {
        self.skips.push(self.x.clone());
    }

    /// Adds another feature map to the current one: one for each text, or one for all.
    pub(crate) fn with(mut self, other: &Tensor) -> Result<Self> {
        self.x = broadcast_sum(&self.x, other)?;
        Ok(self)
    }
}

impl Block {
    pub(crate) fn new(spec: &BlockSpec, weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        Ok(match spec.kind {
            BlockKind::Entry { inputs, outputs } => {
                Self::Convolution(layers::conv2d(weights, inputs, outputs, 3, 1, 1)?)
            }
            BlockKind::Residual { inputs, outputs, .. } => {
                Self::Residual(Box::new(ResidualBlock::new(weights, config, inputs, outputs)?))
            }
            BlockKind::TransformerEntry { channels } => {
                Self::TransformerEntry(TransformerEntry::new(weights, config, channels)?)
            }
            BlockKind::TransformerLayer {
                channels,
                heads,
                context,
            } => Self::TransformerLayer(Box::new(TransformerLayer::new(
                weights, channels, heads, context,
            )?)),
            BlockKind::TransformerExit { channels } => {
                Self::TransformerExit(TransformerExit::new(weights, config, channels)?)
            }
            BlockKind::Downsampler { channels } => Self::Convolution(downsampler(weights, channels)?),
            BlockKind::Upsampler { channels } => Self::Upsampler(Upsampler::new(weights, channels)?),
            BlockKind::Exit { inputs, outputs } => Self::Exit {
                norm: layers::group_norm(
                    &weights.scope("conv_norm_out"),
                    config.norm_num_groups,
                    inputs,
                    config.norm_eps,
                )?,
                conv: layers::conv2d(&weights.scope("conv_out"), inputs, outputs, 3, 1, 1)?,
            },
        })
    }

    /// The feature maps after this block, which is of `kind`. `control` are the residuals that a ControlNet
    /// adds to the skip connections.
    pub(crate) fn forward(
        &self,
        stream: Stream,
        kind: BlockKind,
        at: &AtStep,
        control: Option<&[Tensor]>,
    ) -> Result<Stream> {
        let Stream {
            mut x,
            mut carried,
            mut skips,
        } = stream;
        match self {
            Self::Convolution(convolution) => x = conv2d(&x, convolution)?,
            Self::Residual(block) => {
                if matches!(kind, BlockKind::Residual { skip: 1.., .. }) {
                    let Some(mut feature_map) = skips.pop() else {
                        unreachable!("more blocks take a skip connection than give one. This is a bug.")
                    };
                    if let Some(added) = control.and_then(|control| control.get(skips.len())) {
                        feature_map = sum(&feature_map, added)?;
                    }
                    x = concatenate(&[x, feature_map], 1)?;
                }
                x = block.forward(x, &at.time)?;
            }
            Self::TransformerEntry(entry) => {
                let tokens = entry.forward(&x)?;
                carried = Some(std::mem::replace(&mut x, tokens));
            }
            Self::TransformerLayer(layer) => x = layer.forward(x, &at.context)?,
            Self::TransformerExit(exit) => {
                let Some(feature_map) = carried.take() else {
                    unreachable!("tokens come from a feature map. This is a bug.")
                };
                x = exit.forward(x, feature_map)?;
            }
            Self::Upsampler(upsampler) => {
                let Some(next) = skips.last() else {
                    unreachable!("every size has a skip connection. This is a bug.")
                };
                x = upsampler.forward(x, next.dim(2)?, next.dim(3)?)?;
            }
            Self::Exit { norm, conv } => {
                let normed = group_norm_silu(&x, norm)?;
                drop(x);
                x = conv2d(&normed, conv)?;
            }
        }
        Ok(Stream { x, carried, skips })
    }
}
