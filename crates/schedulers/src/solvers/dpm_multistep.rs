//! Multistep DPM-Solver and DPM-Solver++, for the ODE and the SDE.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
//! algorithm 2 and appendix B. The noise levels and the lower orders at the end are those of diffusers'
//! `DPMSolverMultistepScheduler` and `EDMDPMSolverMultistepScheduler`.

use crate::config::SchedulerConfig;
use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::edm::Edm;
use crate::levels::setup::Setup;
use crate::levels::variance_preserving::{VariancePreserving, solver_order};
use crate::sampler_kind::SamplerKind;
use crate::solvers::dpm_solver::{DpmSolver, slope_and_change};
use crate::solvers::{Solver, Step};
use crate::weighted_sum::{divided_difference, weighted_sum};

/// With fewer steps than this the last ones have lower orders, as in diffusers.
const FEW_STEPS: usize = 15;

/// Steps along a polynomial through the last predictions.
#[derive(Debug)]
pub(crate) struct DpmMultistep {
    levels: VariancePreserving,
    solver: DpmSolver,
    /// The number of predictions that a step uses: 1, 2 or 3.
    order: usize,
    lower_order_final: bool,
    euler_at_final: bool,
    ends_at_sigma_min: bool,
}

impl DpmMultistep {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let ends_at_sigma_min = setup.ends_at_sigma_min()?;
        let levels = VariancePreserving::new(setup)?;
        Self::with_levels(levels, ends_at_sigma_min, setup.config, setup.kind)
    }

    /// For an EDM-preconditioned model.
    pub(crate) fn from_edm(edm: Edm, config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        if config.thresholding == Some(true) {
            return Err(Refusal::setting("thresholding", true));
        }
        let ends_at_sigma_min = edm.ends_at_sigma_min;
        Self::with_levels(VariancePreserving::from_edm(edm), ends_at_sigma_min, config, kind)
    }

    fn with_levels(
        levels: VariancePreserving,
        ends_at_sigma_min: bool,
        config: &SchedulerConfig,
        kind: SamplerKind,
    ) -> Result<Self, Refusal> {
        let solver = DpmSolver::new(config, kind)?;
        let order = solver_order(config)?;
        if order == 3 && matches!(kind, SamplerKind::Dpm2MSde | SamplerKind::EdmDpmPlusPlus2MSde) {
            // diffusers does not implement it either.
            return Err(Refusal::setting("solver_order", order));
        }
        Ok(Self {
            levels,
            solver,
            order,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final.unwrap_or(false),
            ends_at_sigma_min,
        })
    }

    /// The order of the step of `evaluation`, for an image that has had `done` evaluations.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let steps = self.levels.steps();
        let few = self.lower_order_final && steps < FEW_STEPS;
        let highest = if evaluation + 1 == steps && (self.euler_at_final || few || !self.ends_at_sigma_min) {
            1
        } else if evaluation + 2 == steps && few {
            2
        } else {
            3
        };
        self.order.min(done + 1).min(highest)
    }
}

impl Solver for DpmMultistep {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.levels
    }

    fn noise_draws(&self, _evaluation: usize) -> usize {
        usize::from(self.solver.stochastic)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let log_snr = |evaluation: usize| self.levels.log_snr(evaluation);
        let (from, to) = (log_snr(step.evaluation), log_snr(step.evaluation + 1));
        // With `sigma_min` at the end of a curve the last step has no length, by which differences are
        // divided.
        let order = if to.lambda > from.lambda {
            self.order_of(step.evaluation, step.done)
        } else {
            1
        };
        let coefficients = self.solver.coefficients(from, to, order);
        let newest = self.solver.prediction(&self.levels, &step)?;

        let mut moved = weighted_sum(&[
            (coefficients.latents, &step.state.latents),
            (coefficients.prediction, &newest),
        ])?;
        if order > 1 {
            // Distances between the levels of the last predictions, in lengths of this step.
            let length = to.lambda - from.lambda;
            let spacing = |age: usize| {
                let later = log_snr(step.evaluation - age);
                (later.lambda - log_snr(step.evaluation - age - 1).lambda) / length
            };
            let before = step.earlier_output(0)?;
            let nearest = spacing(0);
            let slope = divided_difference(&newest, &before, nearest)?;
            if order == 2 {
                moved = weighted_sum(&[(1.0, &moved), (coefficients.slope, &slope)])?;
            } else {
                let next = spacing(1);
                let oldest = step.earlier_output(1)?;
                let (slope, change) = slope_and_change(&slope, &before, &oldest, nearest, next)?;
                moved = weighted_sum(&[
                    (1.0, &moved),
                    (coefficients.slope, &slope),
                    (coefficients.curvature / (nearest + next), &change),
                ])?;
            }
        }
        if self.solver.stochastic {
            moved = weighted_sum(&[(1.0, &moved), (coefficients.noise, &step.draw_noise()?)])?;
        }
        step.state.latents = moved;
        step.state.push_output(newest, self.order - 1);
        Ok(())
    }
}
