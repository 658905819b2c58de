//! Steps of models of trajectory consistency distillation: straight to a point of the trajectory, and back up with noise.
//!
//! Zheng et al., "Trajectory Consistency Distillation", 2024, algorithm 4 (strategic stochastic sampling); the timesteps are
//! those of diffusers' `TCDScheduler`.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::lcm::distilled_timesteps;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Predicts the latents with less noise than the next step begins with, and adds what is missing.
#[derive(Debug)]
pub(crate) struct Tcd {
    alphas: Alphas,
    /// How much noise is added, from 0 to 1: the gamma of the paper.
    eta: f32,
}

impl Tcd {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, distilled_timesteps(setup)?)?,
            eta: setup.eta()?,
        })
    }

    /// Where the step of an evaluation leads to; the last one to the first timestep of the training.
    fn next(&self, evaluation: usize) -> i64 {
        self.alphas.timesteps.get(evaluation + 1).copied().unwrap_or(0)
    }
}

impl Method for Tcd {
    fn timesteps(&self) -> Vec<f32> {
        self.alphas.told()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.alphas.level(evaluation)
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(self.eta > 0.0 && evaluation + 1 < self.alphas.timesteps.len())
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.alphas.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let timestep = self.alphas.timesteps[step.evaluation];
        let next = self.next(step.evaluation);
        let lower = ((1.0 - self.eta) * next as f32).floor() as i64;
        let latents = &step.trajectory.latents;
        let original = self.alphas.original(step.evaluation, latents, step.output)?;
        let noise = self.alphas.noise(timestep, latents, step.output)?;
        let (left, left_after) = (self.alphas.at(lower), self.alphas.at(next));
        let mut moved = NoiseLevel::of_alpha(left).add_noise(&original, &noise)?;
        if self.noises(step.evaluation) > 0 {
            let kept = left_after / left;
            moved = weighted(&[(kept.sqrt(), &moved), ((1.0 - kept).sqrt(), &step.draw()?)])?;
        }
        step.trajectory.latents = moved;
        Ok(())
    }
}
