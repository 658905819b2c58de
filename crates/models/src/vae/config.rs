//! The autoencoder's configuration, `vae/config.json`.

use sd_ops::Capabilities;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::banded::Banding;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS};
use crate::settings::refuse_others;
use crate::{Error, Result};

const NETWORK: &str = "autoencoder";
/// The epsilon of the autoencoder's group norms.
pub(super) const NORM_EPSILON: f64 = 1e-6;

/// The configuration of an `AutoencoderKL`, and the scale of its latents. Settings that are left out have
/// diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Channels of an image to encode.
    pub in_channels: usize,
    /// Channels of a decoded image.
    pub out_channels: usize,
    /// Channels of the levels, the full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// The factor of latents for the denoising network.
    pub scaling_factor: f64,
    /// Subtracted from latents before scaling.
    pub shift_factor: Option<f64>,
    /// The mean of each channel of latents, if pipelines subtract it.
    pub latents_mean: Option<Vec<f64>>,
    /// The standard deviation of each channel of latents, if pipelines divide by it.
    pub latents_std: Option<Vec<f64>>,
    /// Whether the encoder ends with a 1x1 convolution.
    pub use_quant_conv: bool,
    /// Whether the decoder begins with a 1x1 convolution.
    pub use_post_quant_conv: bool,
    /// Whether the middle block has self-attention.
    pub mid_block_add_attention: bool,
    /// All other settings, some of which must have their default.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            others: Map::new(),
        }
    }
}

impl Config {
    /// Pixels of an image's side for each latent: each level but the last halves the resolution.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(16)
    }

    /// The banding on a device of `capabilities` for `batch` latents of `height` and `width`, which allows for the
    /// largest feature map that must be stored: the result of a level.
    pub(super) fn banding(&self, [batch, height, width]: [usize; 3], capabilities: &Capabilities) -> Banding {
        let positions = batch * height * width;
        let levels = self.block_out_channels.iter().rev().enumerate();
        let largest = levels
            .map(|(level, channels)| (channels * positions) << (2 * level))
            .max();
        Banding::beside(largest.unwrap_or(0), capabilities)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is impossible or not supported; the error names it.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Config {
                network: NETWORK,
                reason,
            })
        };
        let Self {
            block_out_channels: levels,
            norm_num_groups: groups,
            ..
        } = self;
        if levels.is_empty() || levels.len() > 8 {
            return refuse(format!(
                "block_out_channels has {} levels, 1 to 8 are possible",
                levels.len()
            ));
        }
        if let Some(channels) = levels
            .iter()
            .find(|&channels| *groups == 0 || channels % groups != 0)
        {
            return refuse(format!(
                "{channels} channels cannot be divided into {groups} groups"
            ));
        }
        let channels = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ];
        counts::check(NETWORK, MOST_FEATURES, &channels)?;
        for &channels in levels {
            counts::check(
                NETWORK,
                MOST_FEATURES,
                &[("a number of block_out_channels", channels)],
            )?;
        }
        counts::check(
            NETWORK,
            MOST_LAYERS,
            &[("layers_per_block", self.layers_per_block)],
        )?;
        if let Some(shift) = self.shift_factor.filter(|shift| !shift.is_finite()) {
            return refuse(format!("shift_factor is {shift}"));
        }
        if self.scaling_factor == 0.0 || !self.scaling_factor.is_finite() {
            return refuse(format!("scaling_factor is {}", self.scaling_factor));
        }
        for (name, numbers) in [
            ("latents_mean", &self.latents_mean),
            ("latents_std", &self.latents_std),
        ] {
            if let Some(numbers) = numbers.as_ref().filter(|all| all.len() != self.latent_channels) {
                return refuse(format!(
                    "{name} has {} numbers, and latents have {} channels",
                    numbers.len(),
                    self.latent_channels
                ));
            }
        }
        if self
            .latents_std
            .iter()
            .flatten()
            .any(|deviation| *deviation == 0.0)
        {
            return refuse("latents_std has a 0".to_owned());
        }
        for name in ["down_block_types", "up_block_types"] {
            if let Some(Value::Array(types)) = self.others.get(name)
                && types.len() != levels.len()
            {
                return refuse(format!(
                    "{name} has {} levels, block_out_channels has {}",
                    types.len(),
                    levels.len()
                ));
            }
        }
        refuse_others(
            NETWORK,
            &self.others,
            &[
                ("act_fn", json!("silu")),
                ("down_block_types", json!("DownEncoderBlock2D")),
                ("up_block_types", json!("UpDecoderBlock2D")),
            ],
        )
    }
}
