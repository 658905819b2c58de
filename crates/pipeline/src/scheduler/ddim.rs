//! Even steps without noise: denoising diffusion implicit models.
//!
//! Song et al., "Denoising Diffusion Implicit Models", 2021, equation 12 with an eta of 0; the timesteps are
//! those of diffusers' `DDIMScheduler`.

use candle_core::Tensor;

use super::alphas::Alphas;
use super::error::{Refusal, StepError};
use super::level::NoiseLevel;
use super::method::{Method, Step};
use super::setup::Setup;

/// Each step puts the predicted picture and the predicted noise together anew.
#[derive(Debug)]
pub(super) struct Ddim {
    alphas: Alphas,
    /// From one timestep to the next.
    stride: i64,
}

impl Ddim {
    pub(super) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, setup.whole_timesteps())?,
            stride: (setup.table.len() / setup.steps) as i64,
        })
    }
}

impl Method for Ddim {
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
        let timestep = self.alphas.timesteps[step.evaluation];
        let latents = &step.trajectory.latents;
        let original = self.alphas.original(step.evaluation, latents, step.output)?;
        let noise = self.alphas.noise(timestep, latents, step.output)?;
        let next = NoiseLevel::of_alpha(self.alphas.at(timestep - self.stride));
        step.trajectory.latents = next.add_noise(&original, &noise)?;
        Ok(())
    }
}
