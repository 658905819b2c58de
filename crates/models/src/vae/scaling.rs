//! Between latents as the autoencoder has them and latents as the denoising network has them.

use candle_core::{Device, Tensor};

use super::config::Config;
use crate::Result;

/// Which settings of an autoencoder lie between its latents and those of the denoising network. Pipelines of
/// diffusers differ in it, whatever a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// `scaling_factor` alone.
    Factor,
    /// `scaling_factor`, and `shift_factor` where there is one.
    Shifted,
    /// `scaling_factor`, and `latents_mean` and `latents_std` where there are both.
    Normalised,
}

impl Config {
    /// Latents as the decoder takes them, from latents as the denoising network gives them,
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

    /// Latents as the denoising network takes them, from latents as the encoder gives them,
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

    /// The mean and the standard deviation of each channel of latents, `[1, latent_channels, 1, 1]` both,
    /// where the file has both.
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
