//! Multistep SDE-DPM-Solver++ of the third order.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, as
//! k-diffusion's `sample_dpmpp_3m_sde` computes it, with the noise levels of diffusers'
//! `EulerDiscreteScheduler`. (diffusers' `DPMSolverMultistepScheduler` of order 3 differs: it has the
//! opposite sign of a constant, the midpoint variant of the second order, and lower orders at the end.)
//! k-diffusion takes noise from one Brownian path; here the noise source returns it.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::solvers::dpm_solver::slope_and_change;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

/// The number of predictions that a step uses.
const ORDER: usize = 3;

/// Steps along a polynomial through the last predicted original samples, with noise.
#[derive(Debug)]
pub(crate) struct Dpm3MSde(VarianceExploding);

impl Dpm3MSde {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        if setup.ends_at_sigma_min()? {
            return Err(Refusal::setting("final_sigmas_type", "sigma_min"));
        }
        Ok(Self(VarianceExploding::new(setup, false, None)?))
    }

    /// The length of the step of an evaluation, in the logarithm of the level.
    fn length(&self, evaluation: usize) -> f32 {
        self.0.sigmas[evaluation].ln() - self.0.sigmas[evaluation + 1].ln()
    }
}

impl Solver for Dpm3MSde {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.0
    }

    fn noise_draws(&self, evaluation: usize) -> usize {
        usize::from(evaluation + 1 < self.0.steps())
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let evaluation = step.evaluation;
        let newest = self.predicted_original_sample(evaluation, &step.state.latents, step.model_output)?;
        if self.noise_draws(evaluation) == 0 {
            step.state.latents = newest;
            return Ok(());
        }
        let length = self.length(evaluation);
        let decay = (-2.0 * length).exp_m1();
        let mut moved = weighted_sum(&[((-2.0 * length).exp(), &step.state.latents), (-decay, &newest)])?;
        if step.done > 0 {
            let slope_factor = decay / (2.0 * length) + 1.0;
            let before = step.earlier_output(0)?;
            let nearest = self.length(evaluation - 1) / length;
            let slope = divided_difference(&newest, &before, nearest)?;
            if step.done == 1 {
                moved = weighted_sum(&[(1.0, &moved), (slope_factor, &slope)])?;
            } else {
                let next = self.length(evaluation - 2) / length;
                let oldest = step.earlier_output(1)?;
                let (slope, change) = slope_and_change(&slope, &before, &oldest, nearest, next)?;
                let curvature = slope_factor / (2.0 * length) - 0.5;
                moved = weighted_sum(&[
                    (1.0, &moved),
                    (slope_factor, &slope),
                    (-curvature / (nearest + next), &change),
                ])?;
            }
        }
        let noise = step.draw_noise()?;
        let noise_factor = self.0.sigmas[evaluation + 1] * (-decay).sqrt();
        step.state.latents = weighted_sum(&[(1.0, &moved), (noise_factor, &noise)])?;
        step.state.push_output(newest, ORDER - 1);
        Ok(())
    }
}
