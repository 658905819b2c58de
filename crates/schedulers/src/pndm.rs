//! Pseudo linear multistep (PLMS): DDIM's step along a mean of the last four predictions.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022, equations 9 and 12; the
//! timesteps are those of diffusers' `PNDMScheduler` without its Runge-Kutta steps, as Stable Diffusion 1.5
//! sets it.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// How the newest prediction and the three before it are weighed: equation 12.
pub(crate) const MEAN_OF_FOUR: [f32; 4] = [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0];

/// Steps with the memory of three earlier predictions. The first step is taken twice, the second time with
/// the mean of the predictions at its ends.
#[derive(Debug)]
pub(crate) struct Pndm {
    alphas: Alphas,
    /// From one timestep to the next.
    stride: i64,
}

impl Pndm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let mut timesteps = setup.whole_timesteps();
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        Ok(Self {
            alphas: Alphas::new(setup, timesteps)?,
            stride: (setup.table.len() / setup.steps) as i64,
        })
    }
}

/// From `timestep` to `next` along `output`: equation 9.
pub(crate) fn transfer(
    alphas: &Alphas,
    latents: &Tensor,
    timestep: i64,
    next: i64,
    output: &Tensor,
) -> candle_core::Result<Tensor> {
    let noise = alphas.noise(timestep, latents, output)?;
    let (left, left_after) = (alphas.at(timestep), alphas.at(next));
    let denominator = left * (1.0 - left_after).sqrt() + (left * (1.0 - left) * left_after).sqrt();
    let of_noise = -(left_after - left) / denominator;
    weighted(&[((left_after / left).sqrt(), latents), (of_noise, &noise)])
}

impl Method for Pndm {
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
        const REMEMBERED: usize = 3;
        let timestep = self.alphas.timesteps[step.evaluation];
        let output = step.output;
        if step.done == 1 {
            // Once more from where the first began, one stride before this timestep: diffusers counts so
            // wherever a picture begins.
            let mean = weighted(&[(0.5, output), (0.5, &step.earlier(0)?)])?;
            let begun = timestep + self.stride;
            step.trajectory.latents = transfer(&self.alphas, &step.origin()?, begun, timestep, &mean)?;
            step.trajectory.origin = None;
            return Ok(());
        }
        let weights: &[f32] = match step.done {
            0 => &[1.0],
            2 => &[3.0 / 2.0, -1.0 / 2.0],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &MEAN_OF_FOUR,
        };
        let mut mean = weighted(&[(weights[0], output)])?;
        for (age, &weight) in weights[1..].iter().enumerate() {
            mean = weighted(&[(1.0, &mean), (weight, &step.earlier(age)?)])?;
        }
        let latents = step.trajectory.latents.clone();
        step.trajectory.latents = transfer(&self.alphas, &latents, timestep, timestep - self.stride, &mean)?;
        step.trajectory.origin = (step.done == 0).then_some(latents);
        step.trajectory.remember(output.clone(), REMEMBERED);
        Ok(())
    }
}
