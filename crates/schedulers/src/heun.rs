//! Heun's method: a step is tried, and taken again with the mean of the directions at its two ends.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1; the
//! noise levels are those of diffusers' `HeunDiscreteScheduler`.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::exploding::Exploding;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Two evaluations a step, but for the last one, which is Euler's.
#[derive(Debug)]
pub(crate) struct Heun(Exploding);

impl Heun {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self(Exploding::new(setup, false, setup.clip())?))
    }

    /// The level at which an evaluation asks: the step's beginning, then its end.
    fn sigma(&self, evaluation: usize) -> f32 {
        self.0.sigmas[evaluation.div_ceil(2)]
    }
}

impl Method for Heun {
    fn timesteps(&self) -> Vec<f32> {
        self.0.interleaved(&self.0.timesteps[1..])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Exploding {
            sigma: self.sigma(evaluation),
        }
    }

    fn initial_noise_scale(&self) -> f32 {
        self.0.initial_noise_scale
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.0.original(self.sigma(evaluation), latents, output)
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, to) = (
            self.0.sigmas[step.evaluation / 2],
            self.0.sigmas[step.evaluation / 2 + 1],
        );
        let at = self.sigma(step.evaluation);
        let latents = &step.trajectory.latents;
        let original = self.0.original(at, latents, step.output)?;
        let direction = weighted(&[(1.0 / at, latents), (-1.0 / at, &original)])?;
        let distance = to - from;
        if step.evaluation.is_multiple_of(2) {
            let tried = weighted(&[(1.0, latents), (distance, &direction)])?;
            step.trajectory.origin = Some(std::mem::replace(&mut step.trajectory.latents, tried));
            step.trajectory.remember(direction, 1);
        } else {
            let half = 0.5 * distance;
            let (origin, first) = (step.origin()?, step.earlier(0)?);
            step.trajectory.latents = weighted(&[(1.0, &origin), (half, &first), (half, &direction)])?;
            step.trajectory.origin = None;
            step.trajectory.outputs.clear();
        }
        Ok(())
    }
}
