//! What `vae/config.json` says of the autoencoder.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::picture::Banding;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS};
use crate::settings::refuse_others;
use crate::{Error, Result};

const NETWORK: &str = "autoencoder";
/// The epsilon of the autoencoder's norms.
pub(super) const NORM_EPSILON: f64 = 1e-6;

/// The shape of an autoencoder, and the scale of its latents. What is not there has diffusers' default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Channels of a picture that goes in.
    pub in_channels: usize,
    /// Channels of a picture that comes out.
    pub out_channels: usize,
    /// Channels of the levels, the one of full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level on the way down; on the way up there is one more.
    pub layers_per_block: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// What latents are multiplied by for the denoising network.
    pub scaling_factor: f64,
    /// What is taken from latents before.
    pub shift_factor: Option<f64>,
    /// The mean of each channel of latents, where pipelines are to take it off.
    pub latents_mean: Option<Vec<f64>>,
    /// The standard deviation of each channel of latents, where pipelines are to divide by it.
    pub latents_std: Option<Vec<f64>>,
    /// Whether the encoder ends with a convolution of its own.
    pub use_quant_conv: bool,
    /// Whether the decoder begins with one.
    pub use_post_quant_conv: bool,
    /// Whether the lowest level attends.
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
    /// Pixels of a picture's side for each latent: each level but the last halves the resolution.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(16)
    }

    /// How pictures are cut that have `batch` latents of `height` and `width`: beside the largest of those
    /// that are held, which is the result of a level.
    pub(super) fn banding(&self, batch: usize, height: usize, width: usize) -> Banding {
        let places = batch * height * width;
        let levels = self.block_out_channels.iter().rev().enumerate();
        let largest = levels
            .map(|(level, channels)| (channels * places) << (2 * level))
            .max();
        Banding::beside(largest.unwrap_or(0))
    }

    /// Whether a network can be what this says.
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
