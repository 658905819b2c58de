//! Pseudo numerical methods with three Runge-Kutta steps at the beginning, before four predictions are known.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022, equations 9, 12 and 13, as
//! diffusers' `PNDMScheduler` computes them without `skip_prk_steps`.

use crate::error::{Refusal, StepError};
use crate::levels::NoiseLevels;
use crate::levels::alphas::Alphas;
use crate::levels::setup::Setup;
use crate::solvers::pndm::{FOURTH_ORDER, combined_prediction, transfer};
use crate::solvers::{Solver, Step};
use crate::weighted_sum::weighted_sum;

/// The number of Runge-Kutta steps, and of evaluations in each.
const RUNGE_KUTTA_STEPS: usize = 3;
const STAGES: usize = 4;

const RUNGE_KUTTA_EVALUATIONS: usize = RUNGE_KUTTA_STEPS * STAGES;

/// The number of finished steps after `evaluations`.
pub(crate) fn steps_done(evaluations: usize) -> usize {
    let after = evaluations.saturating_sub(RUNGE_KUTTA_EVALUATIONS);
    (evaluations - after) / STAGES + after
}

/// Steps that use three earlier predictions; the first three come from the Runge-Kutta steps.
#[derive(Debug)]
pub(crate) struct PndmRungeKutta {
    alphas: Alphas,
    /// The distance between timesteps.
    stride: i64,
}

impl PndmRungeKutta {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let steps = setup.whole_timesteps();
        let stride = (setup.training.len() / setup.steps) as i64;
        let mut timesteps = Vec::with_capacity(steps.len() + RUNGE_KUTTA_EVALUATIONS);
        for pair in steps[..=RUNGE_KUTTA_STEPS].windows(2) {
            let middle = pair[1] + stride / 2;
            timesteps.extend([pair[0], middle, middle, pair[1]]);
        }
        timesteps.extend(&steps[RUNGE_KUTTA_STEPS..]);
        Ok(Self {
            alphas: Alphas::new(setup, timesteps)?,
            stride,
        })
    }

    /// One evaluation of a Runge-Kutta step. Between the evaluations of a step, the newest output of the
    /// state is the weighted sum so far. The others are the first prediction of each step, newest first.
    fn runge_kutta(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let stage = step.done % STAGES;
        let latents = step.state.latents.clone();
        // Like diffusers, counts from the beginning of the schedule, even if image-to-image begins elsewhere.
        let from = self.alphas.timesteps[step.done - stage];
        let back = if stage.is_multiple_of(2) {
            self.stride / 2
        } else {
            0
        };
        let to = self.alphas.timesteps[step.evaluation] - back;
        let origin = if stage == 0 { latents } else { step.origin()? };
        let weight = if matches!(stage, 1 | 2) {
            1.0 / 3.0
        } else {
            1.0 / 6.0
        };
        let sum = if stage == 0 {
            weighted_sum(&[(weight, step.model_output)])?
        } else {
            weighted_sum(&[(1.0, &step.earlier_output(0)?), (weight, step.model_output)])?
        };
        let is_last = stage + 1 == STAGES;
        let prediction = if is_last { &sum } else { step.model_output };
        let moved = transfer(&self.alphas, &origin, from, to, prediction)?;
        let state = step.state;
        state.latents = moved;
        if stage == 0 {
            state.push_output(step.model_output.clone(), RUNGE_KUTTA_STEPS);
        } else {
            state.outputs.remove(0);
        }
        if is_last {
            state.origin = None;
        } else {
            state.push_output(sum, RUNGE_KUTTA_STEPS + 1);
            state.origin = Some(origin);
        }
        Ok(())
    }
}

impl Solver for PndmRungeKutta {
    fn levels(&self) -> &dyn NoiseLevels {
        &self.alphas
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        if step.done < RUNGE_KUTTA_EVALUATIONS {
            return self.runge_kutta(step);
        }
        let timestep = self.alphas.timesteps[step.evaluation];
        let prediction = combined_prediction(&step, &FOURTH_ORDER)?;
        let latents = &step.state.latents;
        let next = timestep - self.stride;
        step.state.latents = transfer(&self.alphas, latents, timestep, next, &prediction)?;
        step.state
            .push_output(step.model_output.clone(), RUNGE_KUTTA_STEPS);
        Ok(())
    }
}
