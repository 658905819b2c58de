//! SDE-DPM-Solver++ with an evaluation in the middle of each step.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, as
//! k-diffusion's `sample_dpmpp_sde` and diffusers' `DPMSolverSDEScheduler` compute it. They take the two
//! noises of a step from one Brownian path; here the noise source returns both.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::solvers::ancestral::ancestral_step;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Two evaluations per step, except the last, which is an Euler step.
#[derive(Debug)]
pub(crate) struct DpmSde {
    levels: VarianceExploding,
    /// The timesteps that the network gets in the middle of the steps.
    middle_timesteps: Vec<f64>,
}

impl DpmSde {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let levels = VarianceExploding::new(setup, false, None)?;
        let sigmas = setup
            .noise_schedule(setup.timesteps(setup.training.len()), None)
            .sigmas;
        // The middle in the logarithm.
        let middles = sigmas
            .windows(2)
            .map(|pair| (pair[0].ln() + 0.5 * (pair[1].ln() - pair[0].ln())).exp());
        let middle_timesteps = VarianceExploding::middle_timesteps(setup, &middles.collect::<Vec<_>>());
        Ok(Self {
            levels,
            middle_timesteps,
        })
    }

    fn sigma(&self, evaluation: usize) -> f32 {
        let (from, to) = self.ends(evaluation);
        if evaluation.is_multiple_of(2) {
            from
        } else {
            middle(from, to)
        }
    }

    /// The levels at which the step of an evaluation begins and ends.
    fn ends(&self, evaluation: usize) -> (f32, f32) {
        (
            self.levels.sigmas[evaluation / 2],
            self.levels.sigmas[evaluation / 2 + 1],
        )
    }
}

impl Solver for DpmSde {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn timesteps(&self) -> Vec<f32> {
        self.levels.interleaved(&self.middle_timesteps)
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level_of(self.sigma(evaluation))
    }

    /// In the middle of a step, diffusers blends with the noise of the step's end.
    fn blend_level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(evaluation.div_ceil(2))
    }

    fn noise_draws(&self, evaluation: usize) -> usize {
        usize::from(evaluation / 2 + 1 < self.levels.steps())
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, to) = self.ends(step.evaluation);
        let latents = step.state.latents.clone();
        let original = self.predicted_original_sample(step.evaluation, &latents, step.model_output)?;
        if to == 0.0 {
            step.state.latents = original;
            return Ok(());
        }
        let first = step.evaluation.is_multiple_of(2);
        let begun = if first { latents } else { step.origin()? };
        let target = if first { middle(from, to) } else { to };
        let (down, up) = ancestral_step(from, target);
        // `expm1` of the difference of the times, which are the negative logarithms of the levels.
        let share = -(down.ln() - from.ln()).exp_m1();
        let noise = step.draw_noise()?;
        step.state.latents = weighted_sum(&[(down / from, &begun), (share, &original), (up, &noise)])?;
        step.state.origin = first.then_some(begun);
        Ok(())
    }
}

/// The level between two, in the middle of their logarithms.
fn middle(from: f32, to: f32) -> f32 {
    let (start, end) = (-from.ln(), -to.ln());
    (-(start + (end - start) * 0.5)).exp()
}
