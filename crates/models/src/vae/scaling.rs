//! Conversion between the latents of the autoencoder and those of the denoising network.

use candle_core::{Device, Tensor};

use super::config::Config;
use crate::Result;

/// The settings of an autoencoder that scale its latents. Pipelines of diffusers differ in it, whatever the
/// configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// `scaling_factor` only.
    Factor,
    /// `scaling_factor`, and `shift_factor` if there is one.
    Shifted,
    /// `scaling_factor`, and `latents_mean` and `latents_std` if there are both.
    Normalised,
}

impl Config {
    /// Latents for the decoder, from latents of the denoising network,
    /// `[batch, latent_channels, height, width]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn unscale(&self, latents: &Tensor, scaling: Scaling) -> Result<Tensor> {
        Ok(match (scaling, self.moments(latents.device())?) {
            (Scaling::Normalised, Some((means, deviations))) => {
                let spread = (latents.broadcast_mul(&deviations)? / self.scaling_factor)?;
                spread.broadcast_add(&means)?
            }
            (Scaling::Shifted, _) => ((latents / self.scaling_factor)? + self.shift_factor.unwrap_or(0.0))?,
            (Scaling::Factor | Scaling::Normalised, _) => (latents / self.scaling_factor)?,
        })
    }

    /// Latents for the denoising network, from latents of the encoder,
    /// `[batch, latent_channels, height, width]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn scale(&self, latents: &Tensor, scaling: Scaling) -> Result<Tensor> {
        Ok(match (scaling, self.moments(latents.device())?) {
            (Scaling::Normalised, Some((means, deviations))) => {
                let centred = (latents.broadcast_sub(&means)? * self.scaling_factor)?;
                centred.broadcast_div(&deviations)?
            }
            (Scaling::Shifted, _) => ((latents - self.shift_factor.unwrap_or(0.0))? * self.scaling_factor)?,
            (Scaling::Factor | Scaling::Normalised, _) => (latents * self.scaling_factor)?,
        })
    }

    /// The mean and standard deviation of each channel of latents, `[1, latent_channels, 1, 1]` both, if the
    /// configuration has both.
    fn moments(&self, device: &Device) -> candle_core::Result<Option<(Tensor, Tensor)>> {
        let (Some(means), Some(deviations)) = (&self.latents_mean, &self.latents_std) else {
            return Ok(None);
        };
        let of_channels = |numbers: &[f64]| {
            let numbers: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
            Tensor::from_slice(&numbers, (1, numbers.len(), 1, 1), device)
        };
        Ok(Some((of_channels(means)?, of_channels(deviations)?)))
    }
}
