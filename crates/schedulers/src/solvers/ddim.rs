//! Denoising diffusion implicit models: deterministic steps, with noise only where `eta` is above 0.
//!
//! Song et al., "Denoising Diffusion Implicit Models", 2021, equations 12 and 16. The timesteps are those of
//! diffusers' `DDIMScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::setup::Setup;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Each step composes the predicted original sample and the predicted noise at the next level.
#[derive(Debug)]
pub(crate) struct Ddim {
    alphas: Alphas,
    /// The distance between timesteps.
    stride: i64,
    /// The share of DDPM's noise that is added, from 0 to 1.
    eta: f32,
}

impl Ddim {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, setup.whole_timesteps())?,
            stride: (setup.training.len() / setup.steps) as i64,
            eta: setup.eta()?,
        })
    }
}

impl Solver for Ddim {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn noise_draws(&self, _evaluation: usize) -> usize {
        usize::from(self.eta > 0.0)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let timestep = self.alphas.timesteps[step.evaluation];
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let noise = self
            .alphas
            .predicted_noise(step.evaluation, latents, step.model_output)?;
        let alpha_prod = self.alphas.alpha_cumprod(timestep);
        let alpha_prod_prev = self.alphas.alpha_cumprod(timestep - self.stride);
        if self.eta == 0.0 {
            step.state.latents =
                NoiseLevel::from_alpha_cumprod(alpha_prod_prev).add_noise(&original, &noise)?;
            return Ok(());
        }
        let variance = (1.0 - alpha_prod_prev) / (1.0 - alpha_prod) * (1.0 - alpha_prod / alpha_prod_prev);
        let fresh = self.eta * variance.sqrt();
        let kept = (1.0 - alpha_prod_prev - fresh * fresh).max(0.0).sqrt();
        step.state.latents = weighted_sum(&[
            (alpha_prod_prev.sqrt(), &original),
            (kept, &noise),
            (fresh, &step.draw_noise()?),
        ])?;
        Ok(())
    }
}
