//! Heun's method: an Euler step, repeated with the mean of the derivatives at its two ends.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1. The
//! noise levels are those of diffusers' `HeunDiscreteScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

/// Two evaluations per step, except the last, which is an Euler step.
#[derive(Debug)]
pub(crate) struct Heun(VarianceExploding);

impl Heun {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let clip_sample_range = setup.clip_sample_range();
        Ok(Self(VarianceExploding::new(setup, false, clip_sample_range)?))
    }

    /// The level of an evaluation: that of the step's beginning, then that of its end.
    fn sigma(&self, evaluation: usize) -> f32 {
        self.0.sigmas[evaluation.div_ceil(2)]
    }
}

impl Solver for Heun {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.0
    }

    fn timesteps(&self) -> Vec<f32> {
        self.0.interleaved(&self.0.timesteps[1..])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.0.level_of(self.sigma(evaluation))
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, to) = (
            self.0.sigmas[step.evaluation / 2],
            self.0.sigmas[step.evaluation / 2 + 1],
        );
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let derivative = divided_difference(latents, &original, self.sigma(step.evaluation))?;
        let distance = to - from;
        if step.evaluation.is_multiple_of(2) {
            let moved = weighted_sum(&[(1.0, latents), (distance, &derivative)])?;
            step.state.origin = Some(std::mem::replace(&mut step.state.latents, moved));
            step.state.push_output(derivative, 1);
        } else {
            let half = 0.5 * distance;
            let (origin, first) = (step.origin()?, step.earlier_output(0)?);
            step.state.latents = weighted_sum(&[(1.0, &origin), (half, &first), (half, &derivative)])?;
            step.state.origin = None;
            step.state.outputs.clear();
        }
        Ok(())
    }
}
