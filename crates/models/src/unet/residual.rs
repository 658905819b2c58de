//! The residual blocks of the UNet.

use candle_core::{Result, Tensor};
use sd_ops::{Conv2d, GroupNorm, Linear, conv2d, conv2d_onto, conv2d_shifted, group_norm_silu, linear};
use sd_weights::Weights;

use super::config::Config;
use crate::layers;

/// Two convolutions, each after a group norm and silu, with a shortcut around them. The time embedding is
/// added between them.
#[derive(Debug)]
pub(crate) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(crate) fn new(
        weights: &Weights,
        config: &Config,
        inputs: usize,
        outputs: usize,
    ) -> sd_weights::Result<Self> {
        let norm = |name: &str, channels: usize| {
            layers::group_norm(
                &weights.scope(name),
                config.norm_num_groups,
                channels,
                config.norm_eps,
            )
        };
        Ok(Self {
            norm1: norm("norm1", inputs)?,
            conv1: layers::conv2d(&weights.scope("conv1"), inputs, outputs, 3, 1, 1)?,
            time: layers::linear(&weights.scope("time_emb_proj"), config.time_features(), outputs)?,
            norm2: norm("norm2", outputs)?,
            conv2: layers::conv2d(&weights.scope("conv2"), outputs, outputs, 3, 1, 1)?,
            shortcut: if inputs == outputs {
                None
            } else {
                let weights = weights.scope("conv_shortcut");
                Some(layers::conv2d(&weights, inputs, outputs, 1, 1, 0)?)
            },
        })
    }

    /// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`, where the first `x` passes through the
    /// shortcut's convolution if there is one. `time` is `[texts, features]`.
    ///
    /// Every tensor is dropped after its last use: `footprint.rs` counts those that are alive at the same
    /// time.
    pub(crate) fn forward(&self, x: Tensor, time: &Tensor) -> Result<Tensor> {
        let time = linear(time, &self.time)?;
        let mut hidden = conv2d_shifted(&group_norm_silu(&x, &self.norm1)?, &self.conv1, &time)?;
        hidden = group_norm_silu(&hidden, &self.norm2)?;
        let carried = match &self.shortcut {
            Some(shortcut) => {
                let carried = conv2d(&x, shortcut)?;
                drop(x);
                carried
            }
            None => x,
        };
        conv2d_onto(&carried, &hidden, &self.conv2)
    }
}
