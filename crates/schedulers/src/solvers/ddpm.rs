//! Denoising diffusion probabilistic models: the reverse of the training process, with noise at each step.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 6 and 7. The timesteps are those of
//! diffusers' `DDPMScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::setup::Setup;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Each step draws from the distribution of the latents one timestep earlier.
#[derive(Debug)]
pub(crate) struct Ddpm {
    alphas: Alphas,
    /// `variance_type` is `fixed_large`: the variance of a step is its beta, not the variance of the
    /// posterior.
    large_variance: bool,
}

impl Ddpm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let large_variance = match setup.config.variance_type.as_deref() {
            None | Some("fixed_small" | "fixed_small_log") => false,
            Some("fixed_large") => true,
            Some(other) => return Err(Refusal::setting("variance_type", other)),
        };
        Ok(Self {
            alphas: Alphas::new(setup, setup.whole_timesteps())?,
            large_variance,
        })
    }
}

impl Solver for Ddpm {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn noise_draws(&self, evaluation: usize) -> usize {
        usize::from(self.alphas.timesteps[evaluation] > 0)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        const MIN_VARIANCE: f32 = 1e-20;
        let alpha_prod = self.alphas.alpha_cumprod(self.alphas.timesteps[step.evaluation]);
        let next = self.alphas.timesteps.get(step.evaluation + 1);
        let alpha_prod_prev = self.alphas.alpha_cumprod(next.copied().unwrap_or(-1));
        let alpha = alpha_prod / alpha_prod_prev;
        let beta = 1.0 - alpha;
        let share = (1.0 - alpha_prod_prev) / (1.0 - alpha_prod);

        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let original_factor = alpha_prod_prev.sqrt() * beta / (1.0 - alpha_prod);
        let mut moved = weighted_sum(&[(original_factor, &original), (alpha.sqrt() * share, latents)])?;
        if self.noise_draws(step.evaluation) > 0 {
            let variance = if self.large_variance {
                beta
            } else {
                (share * beta).max(MIN_VARIANCE)
            };
            moved = weighted_sum(&[(1.0, &moved), (variance.sqrt(), &step.draw_noise()?)])?;
        }
        step.state.latents = moved;
        Ok(())
    }
}
