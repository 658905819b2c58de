//! Steps of latent consistency models, each of which points straight to the picture.
//!
//! Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
//! 2023, algorithm 3; the timesteps are those of diffusers' `LCMScheduler`.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Predicts the picture, and gives it the noise of the next level.
#[derive(Debug)]
pub(crate) struct Lcm {
    alphas: Alphas,
    /// How fast the boundary condition at the picture fades.
    timestep_scaling: f32,
}

impl Lcm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            alphas: Alphas::new(setup, distilled_timesteps(setup)?)?,
            timestep_scaling: setup.config.timestep_scaling.unwrap_or(10.0),
        })
    }
}

/// The steps that consistency models are distilled with.
const ORIGINAL_STEPS: usize = 50;

/// Timesteps of the distillation, from the last one down, evenly picked from the first on.
pub(crate) fn distilled_timesteps(setup: &Setup<'_>) -> Result<Vec<i64>, Refusal> {
    let (kind, steps) = (setup.kind, setup.steps);
    let original = setup.config.original_inference_steps.unwrap_or(ORIGINAL_STEPS);
    let train = setup.table.len();
    if original == 0 || original > train {
        return Err(Refusal::Setting {
            name: "original_inference_steps",
            value: original.to_string(),
        });
    }
    if steps > original {
        return Err(Refusal::Steps {
            kind,
            steps,
            least: 1,
            most: original,
        });
    }
    let stride = train / original;
    let share = original as f64 / steps as f64;
    let picked = (0..steps).map(|step| (step as f64 * share) as usize);
    Ok(picked
        .map(|index| ((original - index) * stride - 1) as i64)
        .collect())
}

impl Method for Lcm {
    fn timesteps(&self) -> Vec<f32> {
        self.alphas.told()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.alphas.level(evaluation)
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(evaluation + 1 < self.alphas.timesteps.len())
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.alphas.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        const DATA_VARIANCE: f32 = 0.25;
        let latents = &step.trajectory.latents;
        let original = self.alphas.original(step.evaluation, latents, step.output)?;
        let time = self.alphas.timesteps[step.evaluation] as f32 * self.timestep_scaling;
        let variance = time * time + DATA_VARIANCE;
        let denoised = weighted(&[
            (time / variance.sqrt(), &original),
            (DATA_VARIANCE / variance, latents),
        ])?;
        step.trajectory.latents = if self.noises(step.evaluation) > 0 {
            let noise = step.draw()?;
            self.alphas
                .level(step.evaluation + 1)
                .add_noise(&denoised, &noise)?
        } else {
            denoised
        };
        Ok(())
    }
}
