//! Even steps, without noise where none is asked for: denoising diffusion implicit models.
//!
//! Song et al., "Denoising Diffusion Implicit Models", 2021, equations 12 and 16; the timesteps are
//! those of diffusers' `DDIMScheduler`.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Each step puts the predicted picture and the predicted noise together anew.
#[derive(Debug)]
pub(crate) struct Ddim {
    alphas: Alphas,
    /// From one timestep to the next.
    stride: i64,
    /// How much of the noise that DDPM would add is added, from 0 to 1.
    eta: f32,
}

impl Ddim {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, setup.whole_timesteps())?,
            stride: (setup.table.len() / setup.steps) as i64,
            eta: setup.eta()?,
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

    fn noises(&self, _evaluation: usize) -> usize {
        usize::from(self.eta > 0.0)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.alphas.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let timestep = self.alphas.timesteps[step.evaluation];
        let latents = &step.trajectory.latents;
        let original = self.alphas.original(step.evaluation, latents, step.output)?;
        let noise = self.alphas.noise(timestep, latents, step.output)?;
        let (left, left_after) = (self.alphas.at(timestep), self.alphas.at(timestep - self.stride));
        if self.eta == 0.0 {
            step.trajectory.latents = NoiseLevel::of_alpha(left_after).add_noise(&original, &noise)?;
            return Ok(());
        }
        let variance = (1.0 - left_after) / (1.0 - left) * (1.0 - left / left_after);
        let fresh = self.eta * variance.sqrt();
        let kept = (1.0 - left_after - fresh * fresh).max(0.0).sqrt();
        step.trajectory.latents = weighted(&[
            (left_after.sqrt(), &original),
            (kept, &noise),
            (fresh, &step.draw()?),
        ])?;
        Ok(())
    }
}
