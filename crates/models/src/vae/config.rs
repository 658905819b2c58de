//! What `vae/config.json` says of the autoencoder.

use candle_core::Tensor;
use serde::Deserialize;

use super::picture::Banding;
use crate::{Error, Result};

/// The epsilon of the autoencoder's norms.
pub(super) const NORM_EPSILON: f64 = 1e-6;

/// The shape of an autoencoder, and the scale of its latents.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
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
    /// Whether the encoder ends with a convolution of its own.
    pub use_quant_conv: bool,
    /// Whether the decoder begins with one.
    pub use_post_quant_conv: bool,
    /// Whether the lowest level attends.
    pub mid_block_add_attention: bool,
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
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl Config {
    /// Pixels of a picture's side for each latent: each level but the last halves the resolution.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(16)
    }

    /// Latents as the decoder takes them, from latents as the denoising network gives them.
    ///
    /// # Errors
    /// The device fails.
    pub fn unscale(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(((latents / self.scaling_factor)? + self.shift_factor.unwrap_or(0.0))?)
    }

    /// Latents as the denoising network takes them, from latents as the encoder gives them.
    ///
    /// # Errors
    /// The device fails.
    pub fn scale(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(((latents - self.shift_factor.unwrap_or(0.0))? * self.scaling_factor)?)
    }

    /// How pictures are cut that have `batch` latents of `height` and `width`: beside the largest of those that are
    /// held, which is the result of a level.
    pub(super) fn banding(&self, batch: usize, height: usize, width: usize) -> Banding {
        let places = batch * height * width;
        let levels = self.block_out_channels.iter().rev().enumerate();
        let largest = levels
            .map(|(level, channels)| (channels * places) << (2 * level))
            .max();
        Banding::beside(largest.unwrap_or(0))
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Config {
                network: "autoencoder",
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
        if self.latent_channels == 0 || levels.contains(&0) {
            return refuse("a number of channels is 0".to_owned());
        }
        if self.scaling_factor == 0.0 || !self.scaling_factor.is_finite() {
            return refuse(format!("scaling_factor is {}", self.scaling_factor));
        }
        Ok(())
    }
}
