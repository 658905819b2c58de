//! Latent consistency models: each evaluation predicts the original sample, which gets fresh noise of the
//! next level.
//!
//! Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
//! 2023, algorithm 3. The timesteps are those of diffusers' `LCMScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::setup::Setup;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Steps to the predicted original sample and back to the next noise level.
#[derive(Debug)]
pub(crate) struct Lcm {
    alphas: Alphas,
    /// How fast the boundary condition at timestep 0 fades.
    timestep_scaling: f32,
}

impl Lcm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, distilled_timesteps(setup)?)?,
            timestep_scaling: setup.config.timestep_scaling.unwrap_or(10.0),
        })
    }
}

/// The default of `original_inference_steps`.
const ORIGINAL_STEPS: usize = 50;

/// The timesteps of a consistency-distilled model: evenly chosen from those of the distillation, from the
/// last one down.
pub(super) fn distilled_timesteps(setup: &Setup<'_>) -> Result<Vec<i64>, Refusal> {
    let (kind, steps) = (setup.kind, setup.steps);
    let original = setup.config.original_inference_steps.unwrap_or(ORIGINAL_STEPS);
    let train = setup.training.len();
    if original == 0 || original > train {
        return Err(Refusal::setting("original_inference_steps", original));
    }
    Refusal::check_steps(kind, steps, 1..=original)?;
    let stride = train / original;
    let share = original as f64 / steps as f64;
    let chosen = (0..steps).map(|step| (step as f64 * share) as usize);
    Ok(chosen
        .map(|index| ((original - index) * stride - 1) as i64)
        .collect())
}

impl Solver for Lcm {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn noise_draws(&self, evaluation: usize) -> usize {
        usize::from(evaluation + 1 < self.alphas.timesteps.len())
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        const DATA_VARIANCE: f32 = 0.25;
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let time = self.alphas.timesteps[step.evaluation] as f32 * self.timestep_scaling;
        let variance = time * time + DATA_VARIANCE;
        let denoised = weighted_sum(&[
            (time / variance.sqrt(), &original),
            (DATA_VARIANCE / variance, latents),
        ])?;
        step.state.latents = if self.noise_draws(step.evaluation) > 0 {
            let noise = step.draw_noise()?;
            self.level(step.evaluation + 1).add_noise(&denoised, &noise)?
        } else {
            denoised
        };
        Ok(())
    }
}
