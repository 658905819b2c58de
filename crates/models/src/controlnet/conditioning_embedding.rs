//! The embedding of the control image, down to the resolution of latents.

use candle_core::{Result, Tensor};
use sd_ops::{Conv2d, conv2d, silu};
use sd_weights::Weights;

use super::config::{ChannelOrder, Config};
use crate::layers;

/// Convolutions with silu between them, every second one of stride 2. They run once per run.
#[derive(Debug)]
pub(super) struct ConditioningEmbedding {
    convolutions: Vec<Conv2d>,
    order: ChannelOrder,
}

impl ConditioningEmbedding {
    pub(super) fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let all = config.convolutions();
        let convolution = |(index, &[inputs, outputs, stride]): (usize, &[usize; 3])| {
            let name = match index {
                0 => "conv_in".to_owned(),
                _ if index + 1 == all.len() => "conv_out".to_owned(),
                _ => format!("blocks.{}", index - 1),
            };
            layers::conv2d(&weights.scope(name), inputs, outputs, 3, stride, 1)
        };
        let convolutions = all.iter().enumerate().map(convolution);
        Ok(Self {
            convolutions: convolutions.collect::<sd_weights::Result<_>>()?,
            order: config.controlnet_conditioning_channel_order,
        })
    }

    /// `control_image`, `[1, channels, factor * height, factor * width]` in RGB order, as
    /// `[1, channels, height, width]`.
    pub(super) fn embed(&self, control_image: &Tensor) -> Result<Tensor> {
        let mut x = match self.order {
            ChannelOrder::Rgb => control_image.clone(),
            ChannelOrder::Bgr => control_image.flip(&[1])?,
        };
        for (index, convolution) in self.convolutions.iter().enumerate() {
            if index > 0 {
                x = silu(&x)?;
            }
            x = conv2d(&x, convolution)?;
        }
        Ok(x)
    }
}
