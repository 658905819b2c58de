//! Linear multistep: the direction of a step is a polynomial through those of the last four.
//!
//! The Adams-Bashforth method over uneven steps, as in k-diffusion's `sample_lms`; the noise levels are those
//! of diffusers' `LMSDiscreteScheduler`.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::exploding::Exploding;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

const ORDER: usize = 4;

/// Steps with the memory of three earlier directions.
#[derive(Debug)]
pub(crate) struct Lms(Exploding);

impl Lms {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self(Exploding::new(setup, false, None)?))
    }

    /// How much the direction `age` steps ago counts in step `step`, of the last `order`: the integral over
    /// the step of the polynomial that is 1 at that level and 0 at the others.
    fn weight(&self, step: usize, order: usize, age: usize) -> f64 {
        let sigma = |step: usize| f64::from(self.0.sigmas[step]);
        let basis = |place: f64| {
            let others = (0..order).filter(|&other| other != age);
            let factor =
                |other: usize| (place - sigma(step - other)) / (sigma(step - age) - sigma(step - other));
            others.map(factor).product::<f64>()
        };
        // Gauss's two points are exact for polynomials up to the third degree.
        let (middle, half) = (
            0.5 * (sigma(step) + sigma(step + 1)),
            0.5 * (sigma(step + 1) - sigma(step)),
        );
        let offset = half / 3.0_f64.sqrt();
        half * (basis(middle - offset) + basis(middle + offset))
    }
}

impl Method for Lms {
    fn timesteps(&self) -> Vec<f32> {
        self.0.interleaved(&[])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Exploding {
            sigma: self.0.sigmas[evaluation],
        }
    }

    fn initial_noise_scale(&self) -> f32 {
        self.0.initial_noise_scale
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.0.original(self.0.sigmas[evaluation], latents, output)
    }

    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError> {
        let sigma = self.0.sigmas[step.evaluation];
        let latents = &step.trajectory.latents;
        let original = self.0.original(sigma, latents, step.output)?;
        let direction = weighted(&[(1.0 / sigma, latents), (-1.0 / sigma, &original)])?;
        // Of the directions that this picture has: diffusers counts those of steps that were passed over too,
        // and then weighs the few that there are as if the others came with them.
        let order = ORDER.min(step.done + 1);
        let mut moved = latents.clone();
        for age in 0..order {
            let weight = self.weight(step.evaluation, order, age) as f32;
            let of_age = if age == 0 {
                direction.clone()
            } else {
                step.earlier(age - 1)?
            };
            moved = weighted(&[(1.0, &moved), (weight, &of_age)])?;
        }
        step.trajectory.latents = moved;
        step.trajectory.remember(direction, ORDER - 1);
        Ok(())
    }
}
