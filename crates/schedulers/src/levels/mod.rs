//! Noise levels and timesteps of a run, and what they mean for latents and for the network's predictions.
//!
//! [`noise_level::NoiseLevel`] is one level. Types that implement [`NoiseLevels`] are the levels of a whole
//! run, one for each parameterization that solvers compute in.

pub(crate) mod alphas;
mod beta_distribution;
pub(crate) mod edm;
pub(crate) mod flow_match_euler;
mod flow_sigmas;
pub(crate) mod noise_level;
pub(crate) mod prediction_type;
pub(crate) mod setup;
mod sigmas;
mod timestep_spacing;
mod training_schedule;
pub(crate) mod variance_exploding;
pub(crate) mod variance_preserving;

use candle_core::{Result, Tensor};

use self::noise_level::NoiseLevel;
use self::prediction_type::PredictionType;

/// The noise levels of a run. Evaluations are counted over the whole schedule.
pub(crate) trait NoiseLevels {
    /// The timestep that the network gets, for each evaluation.
    fn timesteps(&self) -> Vec<f32>;

    /// The noise level of an evaluation.
    fn level(&self, evaluation: usize) -> NoiseLevel;

    /// The factor that makes initial latents of standard normal noise: `init_noise_sigma` in diffusers.
    fn initial_noise_scale(&self) -> f32 {
        1.0
    }

    /// What the network predicts.
    fn prediction_type(&self) -> PredictionType;

    /// The range, around 0, to which predicted original samples are clipped.
    fn clip_sample_range(&self) -> Option<f32> {
        None
    }

    /// The original sample that `model_output`, the network's for `latents` at `level`, predicts.
    fn predicted_original_sample_at(
        &self,
        level: NoiseLevel,
        latents: &Tensor,
        model_output: &Tensor,
    ) -> Result<Tensor> {
        let sample = level.predicted_original_sample(self.prediction_type(), latents, model_output)?;
        match self.clip_sample_range() {
            Some(limit) => sample.clamp(-limit, limit),
            None => Ok(sample),
        }
    }

    /// The original sample that `model_output`, the network's for `latents` at `evaluation`, predicts.
    fn predicted_original_sample(
        &self,
        evaluation: usize,
        latents: &Tensor,
        model_output: &Tensor,
    ) -> Result<Tensor> {
        self.predicted_original_sample_at(self.level(evaluation), latents, model_output)
    }

    /// The noise in `latents` that `model_output`, the network's at `evaluation`, predicts. Not clipped.
    fn predicted_noise(&self, evaluation: usize, latents: &Tensor, model_output: &Tensor) -> Result<Tensor> {
        self.level(evaluation)
            .predicted_noise(self.prediction_type(), latents, model_output)
    }
}
