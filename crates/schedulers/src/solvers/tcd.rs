//! Trajectory consistency distillation: each evaluation predicts a point below the next noise level, which
//! gets fresh noise.
//!
//! Zheng et al., "Trajectory Consistency Distillation", 2024, algorithm 4 (strategic stochastic sampling).
//! The timesteps are those of diffusers' `TCDScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::setup::Setup;
use crate::solvers::lcm::distilled_timesteps;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Steps to a lower level than the next, and back up to it with noise.
#[derive(Debug)]
pub(crate) struct Tcd {
    alphas: Alphas,
    /// How much noise is added, from 0 to 1: gamma in the paper, `eta` in diffusers.
    eta: f32,
}

impl Tcd {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, distilled_timesteps(setup)?)?,
            eta: setup.eta()?,
        })
    }

    /// The timestep after the step of an evaluation; after the last one the first training timestep.
    fn next(&self, evaluation: usize) -> i64 {
        self.alphas.timesteps.get(evaluation + 1).copied().unwrap_or(0)
    }
}

impl Solver for Tcd {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn noise_draws(&self, evaluation: usize) -> usize {
        usize::from(self.eta > 0.0 && evaluation + 1 < self.alphas.timesteps.len())
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let next = self.next(step.evaluation);
        let lower = ((1.0 - self.eta) * next as f32).floor() as i64;
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let noise = self
            .alphas
            .predicted_noise(step.evaluation, latents, step.model_output)?;
        let alpha_prod = self.alphas.alpha_cumprod(lower);
        let alpha_prod_prev = self.alphas.alpha_cumprod(next);
        let mut moved = NoiseLevel::from_alpha_cumprod(alpha_prod).add_noise(&original, &noise)?;
        if self.noise_draws(step.evaluation) > 0 {
            let kept = alpha_prod_prev / alpha_prod;
            moved = weighted_sum(&[(kept.sqrt(), &moved), ((1.0 - kept).sqrt(), &step.draw_noise()?)])?;
        }
        step.state.latents = moved;
        Ok(())
    }
}
