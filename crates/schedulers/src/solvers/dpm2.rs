//! Second-order solvers with an evaluation in the middle of each step: DPM-Solver-2, with or without
//! ancestral noise, and DPM-Solver++ with ancestral noise.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
//! 2022, algorithm 1, as diffusers' `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler` compute
//! it; and k-diffusion's `sample_dpmpp_2s_ancestral` with the noise levels of diffusers'
//! `EulerDiscreteScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::sampler_kind::SamplerKind;
use crate::solvers::ancestral::ancestral_step;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Two evaluations per step, except the last, which is an Euler step.
#[derive(Debug)]
pub(crate) struct Dpm2 {
    levels: VarianceExploding,
    /// The timesteps that the network gets in the middle of the steps.
    middle_timesteps: Vec<f64>,
    /// Whether steps are ancestral.
    ancestral: bool,
    /// Whether the second evaluation's predicted original sample is used (DPM-Solver++), not its derivative.
    predict_x0: bool,
}

impl Dpm2 {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let predict_x0 = setup.kind == SamplerKind::DpmPlusPlus2SAncestral;
        if predict_x0 && setup.ends_at_sigma_min()? {
            return Err(Refusal::setting("final_sigmas_type", "sigma_min"));
        }
        let mut solver = Self {
            levels: VarianceExploding::new(setup, false, None)?,
            middle_timesteps: Vec::new(),
            ancestral: setup.kind != SamplerKind::Dpm2,
            predict_x0,
        };
        let middles: Vec<f64> = (0..solver.levels.steps() - 1)
            .map(|step| f64::from(solver.middle(step)))
            .collect();
        solver.middle_timesteps = VarianceExploding::middle_timesteps(setup, &middles);
        Ok(solver)
    }

    /// The levels at which a step begins and, before noise is added, ends, and the standard deviation of that
    /// noise.
    fn ends(&self, step: usize) -> (f32, f32, f32) {
        let (from, to) = (self.levels.sigmas[step], self.levels.sigmas[step + 1]);
        if !self.ancestral {
            return (from, to, 0.0);
        }
        let (down, up) = ancestral_step(from, to);
        // If `from` is thousands of times `to`, the difference of squares rounds to 0, at which a step has no
        // middle.
        let down = if down == 0.0 { to * to / from } else { down };
        (from, down, up)
    }

    /// The level in the middle of a step, in the logarithm.
    fn middle(&self, step: usize) -> f32 {
        let (from, down, _) = self.ends(step);
        (from.ln() + 0.5 * (down.ln() - from.ln())).exp()
    }

    fn sigma(&self, evaluation: usize) -> f32 {
        if evaluation.is_multiple_of(2) {
            self.levels.sigmas[evaluation / 2]
        } else {
            self.middle(evaluation / 2)
        }
    }
}

impl Solver for Dpm2 {
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
        usize::from(self.ancestral && !evaluation.is_multiple_of(2))
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, down, up) = self.ends(step.evaluation / 2);
        let latents = step.state.latents.clone();
        let original = self.predicted_original_sample(step.evaluation, &latents, step.model_output)?;
        if step.evaluation.is_multiple_of(2) {
            let middle = self.middle(step.evaluation / 2);
            step.state.latents = if down == 0.0 {
                original
            } else {
                step.state.origin = Some(latents.clone());
                weighted_sum(&[(middle / from, &latents), (1.0 - middle / from, &original)])?
            };
            return Ok(());
        }
        let origin = step.origin()?;
        let moved = if self.predict_x0 {
            weighted_sum(&[(down / from, &origin), (1.0 - down / from, &original)])?
        } else {
            let slope = (down - from) / self.sigma(step.evaluation);
            weighted_sum(&[(1.0, &origin), (slope, &latents), (-slope, &original)])?
        };
        step.state.latents = if self.ancestral {
            weighted_sum(&[(1.0, &moved), (up, &step.draw_noise()?)])?
        } else {
            moved
        };
        step.state.origin = None;
        Ok(())
    }
}
