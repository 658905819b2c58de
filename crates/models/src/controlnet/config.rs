//! The configuration of a ControlNet, its `config.json`.

use serde::Deserialize;
use serde_json::json;

use crate::settings::refuse_others;
use crate::{Error, Result, unet};

/// The configuration of a `ControlNetModel`. Settings that are left out have diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// The configuration of the UNet whose down path and middle block it has.
    #[serde(flatten)]
    pub network: unet::Config,
    /// Channels of the control image.
    pub conditioning_channels: usize,
    /// The channel order of the control image.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Channels of the control image's embedding, from full resolution to that of latents.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Whether residuals are pooled over the whole image, which is not supported.
    pub global_pool_conditions: bool,
}

/// The order of an image's colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: unet::Config::default(),
            conditioning_channels: 3,
            controlnet_conditioning_channel_order: ChannelOrder::default(),
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            global_pool_conditions: false,
        }
    }
}

impl Config {
    /// Pixels of the control image's side for each latent.
    pub fn downsampling(&self) -> usize {
        1 << self
            .conditioning_embedding_out_channels
            .len()
            .saturating_sub(1)
            .min(16)
    }

    /// The convolutions of the control image's embedding: input channels, output channels, stride.
    pub(super) fn convolutions(&self) -> Vec<[usize; 3]> {
        let levels = &self.conditioning_embedding_out_channels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let between = levels
            .windows(2)
            .flat_map(|pair| [[pair[0], pair[0], 1], [pair[0], pair[1], 2]]);
        let entry = [self.conditioning_channels, first, 1];
        let exit = [last, self.network.block_out_channels[0], 1];
        [entry].into_iter().chain(between).chain([exit]).collect()
    }

    /// The same without an up path, once the settings are checked.
    pub(super) fn checked(&self, network: &'static str) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Config { network, reason });
        let channels = &self.conditioning_embedding_out_channels;
        if channels.is_empty()
            || channels.len() > 8
            || channels.iter().any(|channels| !(1..=1 << 16).contains(channels))
        {
            let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
            return refuse(format!(
                "conditioning_embedding_out_channels is [{}]",
                channels.join(", ")
            ));
        }
        if self.conditioning_channels == 0 || self.conditioning_channels > 1 << 16 {
            return refuse(format!("conditioning_channels is {}", self.conditioning_channels));
        }
        if self.global_pool_conditions {
            return refuse("global_pool_conditions is true, only false is known".to_owned());
        }
        if self.network.mid_block_type.is_none() {
            return refuse("mid_block_type is null, and a ControlNet adds to the middle".to_owned());
        }
        // Union networks take the kind of control image as an input.
        refuse_others(
            network,
            &self.network.others,
            &[("num_control_type", json!(null))],
        )?;
        let mut config = self.clone();
        config.network.up_block_types.clear();
        config.network.check(network)?;
        Ok(config)
    }
}
