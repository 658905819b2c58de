//! DPM-Solver and DPM-Solver++ over the predictions of the last steps, for the ordinary and for the stochastic equation.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
//! algorithm 2 and appendix B; the noise levels and the lower orders at the end are those of diffusers'
//! `DPMSolverMultistepScheduler` and `EDMDPMSolverMultistepScheduler`.

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::dpm_solver::DpmSolver;
use crate::edm::Edm;
use crate::error::{Refusal, StepError};
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::preserving::Preserving;
use crate::setup::Setup;

/// Below this many steps the last ones are taken in lower orders.
const FEW_STEPS: usize = 15;

/// Steps along a polynomial through what the last predictions point to.
#[derive(Debug)]
pub(crate) struct Multistep {
    levels: Preserving,
    solver: DpmSolver,
    /// How many predictions a step builds on: 1, 2 or 3.
    order: usize,
    lower_order_final: bool,
    euler_at_final: bool,
    ends_at_least_noise: bool,
}

impl Multistep {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let ends_at_least_noise = setup.ends_at_least_noise()?;
        let levels = Preserving::new(setup)?;
        Self::over(levels, ends_at_least_noise, setup.config, setup.kind)
    }

    /// For a model that is preconditioned as EDM does.
    pub(crate) fn of_edm(edm: Edm, config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        if config.thresholding == Some(true) {
            return Err(Refusal::Setting {
                name: "thresholding",
                value: "true".to_owned(),
            });
        }
        let ends_at_least_noise = edm.ends_at_least_noise;
        Self::over(Preserving::of_edm(edm), ends_at_least_noise, config, kind)
    }

    fn over(
        levels: Preserving,
        ends_at_least_noise: bool,
        config: &SchedulerConfig,
        kind: SamplerKind,
    ) -> Result<Self, Refusal> {
        let solver = DpmSolver::new(config, kind)?;
        let order = crate::preserving::order(config)?;
        if order == 3 && matches!(kind, SamplerKind::Dpm2MSde | SamplerKind::EdmDpmPlusPlus2MSde) {
            // diffusers has none either.
            return Err(Refusal::Setting {
                name: "solver_order",
                value: order.to_string(),
            });
        }
        Ok(Self {
            levels,
            solver,
            order,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final.unwrap_or(false),
            ends_at_least_noise,
        })
    }

    /// How many predictions the step of `evaluation` builds on, for a picture with `done` of them behind it.
    fn order_of(&self, evaluation: usize, done: usize) -> usize {
        let steps = self.levels.steps();
        let few = self.lower_order_final && steps < FEW_STEPS;
        let highest = if evaluation + 1 == steps && (self.euler_at_final || few || !self.ends_at_least_noise)
        {
            1
        } else if evaluation + 2 == steps && few {
            2
        } else {
            3
        };
        self.order.min(done + 1).min(highest)
    }
}

impl Method for Multistep {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(evaluation)
    }

    fn initial_noise_scale(&self) -> f32 {
        self.levels.initial_noise_scale
    }

    fn noises(&self, _evaluation: usize) -> usize {
        usize::from(self.solver.stochastic)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let moment = |evaluation: usize| self.levels.moment(evaluation);
        let (from, to) = (moment(step.evaluation), moment(step.evaluation + 1));
        // A curve that ends where the last step does leaves it no length to build differences over.
        let order = if to.time > from.time {
            self.order_of(step.evaluation, step.done)
        } else {
            1
        };
        let weights = self.solver.weights(from, to, order);
        let latents = &step.trajectory.latents;
        let newest = if self.solver.of_pictures {
            self.levels.original(step.evaluation, latents, step.output)?
        } else {
            self.levels.noise(step.evaluation, latents, step.output)?
        };

        let mut moved = weighted(&[
            (weights.latents, &step.trajectory.latents),
            (weights.prediction, &newest),
        ])?;
        if order > 1 {
            // Differences over the steps before, in lengths of this one.
            let length = to.time - from.time;
            let spacing = |age: usize| {
                let later = moment(step.evaluation - age);
                (later.time - moment(step.evaluation - age - 1).time) / length
            };
            let before = step.earlier(0)?;
            let nearest = spacing(0);
            let slope = weighted(&[(1.0 / nearest, &newest), (-1.0 / nearest, &before)])?;
            if order == 2 {
                moved = weighted(&[(1.0, &moved), (weights.slope, &slope)])?;
            } else {
                let next = spacing(1);
                let older = weighted(&[(1.0 / next, &before), (-1.0 / next, &step.earlier(1)?)])?;
                let change = weighted(&[(1.0, &slope), (-1.0, &older)])?;
                let both = nearest + next;
                let slope = weighted(&[(1.0, &slope), (nearest / both, &change)])?;
                let curvature = weights.curvature / both;
                moved = weighted(&[(1.0, &moved), (weights.slope, &slope), (curvature, &change)])?;
            }
        }
        if self.solver.stochastic {
            moved = weighted(&[(1.0, &moved), (weights.noise, &step.draw()?)])?;
        }
        step.trajectory.latents = moved;
        step.trajectory.remember(newest, self.order - 1);
        Ok(())
    }
}
