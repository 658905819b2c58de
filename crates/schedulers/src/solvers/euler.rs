//! Euler's method, with or without ancestral noise.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1
//! without its second order, and K. Crowson's k-diffusion (`sample_euler_ancestral`). The noise levels are
//! those of diffusers' `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler` and `EDMEulerScheduler`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::edm::Edm;
use crate::levels::setup::Setup;
use crate::levels::variance_exploding::VarianceExploding;
use crate::solvers::ancestral::ancestral_step;
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// Steps along the straight line to the predicted original sample.
#[derive(Debug)]
pub(crate) struct Euler {
    levels: VarianceExploding,
    ancestral: bool,
}

impl Euler {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            levels: VarianceExploding::new(setup, setup.ends_at_sigma_min()?, None)?,
            ancestral: false,
        })
    }

    pub(crate) fn ancestral(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            levels: VarianceExploding::new(setup, false, None)?,
            ancestral: true,
        })
    }

    /// For an EDM-preconditioned model.
    pub(crate) fn from_edm(edm: Edm) -> Self {
        Self {
            levels: VarianceExploding::from_edm(edm),
            ancestral: false,
        }
    }
}

impl Solver for Euler {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn noise_draws(&self, _evaluation: usize) -> usize {
        // After the last step too, where its weight is 0, so that later draws are the same as in diffusers.
        usize::from(self.ancestral)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (sigma, next) = (
            self.levels.sigmas[step.evaluation],
            self.levels.sigmas[step.evaluation + 1],
        );
        let latents = &step.state.latents;
        let original = self.predicted_original_sample(step.evaluation, latents, step.model_output)?;
        let toward =
            |target: f32| weighted_sum(&[(target / sigma, latents), (1.0 - target / sigma, &original)]);
        let moved = if self.ancestral {
            let (down, up) = ancestral_step(sigma, next);
            let moved = toward(down)?;
            weighted_sum(&[(1.0, &moved), (up, &step.draw_noise()?)])?
        } else {
            toward(next)?
        };
        step.state.latents = moved;
        Ok(())
    }
}
