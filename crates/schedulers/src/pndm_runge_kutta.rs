//! Pseudo numerical methods that begin with three steps of Runge-Kutta, before four predictions are known.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022, equations 9, 12 and 13, as diffusers'
//! `PNDMScheduler` carries them out without `skip_prk_steps`.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::pndm::{MEAN_OF_FOUR, transfer};
use crate::setup::Setup;

/// Steps of Runge-Kutta, and how many evaluations each has.
const BEGINNING: usize = 3;
const STAGES: usize = 4;

/// Evaluations of the beginning.
pub(crate) const BEGINNING_EVALUATIONS: usize = BEGINNING * STAGES;

/// Steps with the memory of three earlier predictions, which come from the beginning.
#[derive(Debug)]
pub(crate) struct PndmRungeKutta {
    alphas: Alphas,
    /// From one timestep to the next.
    stride: i64,
}

impl PndmRungeKutta {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let steps = setup.whole_timesteps();
        let stride = (setup.table.len() / setup.steps) as i64;
        let mut timesteps = Vec::with_capacity(steps.len() + BEGINNING_EVALUATIONS);
        for pair in steps[..=BEGINNING].windows(2) {
            let middle = pair[1] + stride / 2;
            timesteps.extend([pair[0], middle, middle, pair[1]]);
        }
        timesteps.extend(&steps[BEGINNING..]);
        Ok(Self {
            alphas: Alphas::new(setup, timesteps)?,
            stride,
        })
    }

    /// One evaluation of a step of Runge-Kutta. The trajectory's outputs are its weighted sum so far, between a step's
    /// evaluations, and then the first of each step, the newest first.
    fn begin(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let stage = step.done % STAGES;
        let latents = step.trajectory.latents.clone();
        // diffusers counts from the schedule's beginning wherever a picture begins.
        let from = self.alphas.timesteps[step.done - stage];
        let back = if stage.is_multiple_of(2) {
            self.stride / 2
        } else {
            0
        };
        let to = self.alphas.timesteps[step.evaluation] - back;
        let origin = if stage == 0 { latents } else { step.origin()? };
        let share = if matches!(stage, 1 | 2) {
            1.0 / 3.0
        } else {
            1.0 / 6.0
        };
        let sum = if stage == 0 {
            weighted(&[(share, step.output)])?
        } else {
            weighted(&[(1.0, &step.earlier(0)?), (share, step.output)])?
        };
        let is_last = stage + 1 == STAGES;
        let direction = if is_last { &sum } else { step.output };
        let moved = transfer(&self.alphas, &origin, from, to, direction)?;
        let trajectory = step.trajectory;
        trajectory.latents = moved;
        if stage == 0 {
            trajectory.remember(step.output.clone(), BEGINNING);
        } else {
            trajectory.outputs.remove(0);
        }
        if is_last {
            trajectory.origin = None;
        } else {
            trajectory.remember(sum, BEGINNING + 1);
            trajectory.origin = Some(origin);
        }
        Ok(())
    }
}

impl Method for PndmRungeKutta {
    fn timesteps(&self) -> Vec<f32> {
        self.alphas.told()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.alphas.level(evaluation)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.alphas.original(evaluation, latents, output)
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        if step.done < BEGINNING_EVALUATIONS {
            return self.begin(step);
        }
        let timestep = self.alphas.timesteps[step.evaluation];
        let mut mean = weighted(&[(MEAN_OF_FOUR[0], step.output)])?;
        for (age, &weight) in MEAN_OF_FOUR[1..].iter().enumerate() {
            mean = weighted(&[(1.0, &mean), (weight, &step.earlier(age)?)])?;
        }
        let latents = &step.trajectory.latents;
        let moved = transfer(&self.alphas, latents, timestep, timestep - self.stride, &mean)?;
        step.trajectory.latents = moved;
        step.trajectory.remember(step.output.clone(), BEGINNING);
        Ok(())
    }
}
