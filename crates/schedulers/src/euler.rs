//! Euler's method, and the same with fresh noise after each step.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1
//! without its second order, and the ancestral steps of K. Crowson's k-diffusion; the noise levels are those
//! of diffusers' `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler` and `EDMEulerScheduler`.

use candle_core::Tensor;

use crate::edm::Edm;
use crate::error::{Refusal, StepError};
use crate::exploding::Exploding;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Steps along the straight line to the predicted picture.
#[derive(Debug)]
pub(crate) struct Euler {
    levels: Exploding,
    ancestral: bool,
}

impl Euler {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            levels: Exploding::new(setup, setup.ends_at_least_noise()?, None)?,
            ancestral: false,
        })
    }

    pub(crate) fn ancestral(setup: &Setup<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            levels: Exploding::new(setup, false, None)?,
            ancestral: true,
        })
    }

    /// For a model that is preconditioned as EDM does.
    pub(crate) fn of_edm(edm: Edm) -> Self {
        Self {
            levels: Exploding::of_edm(edm),
            ancestral: false,
        }
    }
}

impl Method for Euler {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.interleaved(&[])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(self.levels.sigmas[evaluation])
    }

    fn initial_noise_scale(&self) -> f32 {
        self.levels.initial_noise_scale
    }

    fn noises(&self, _evaluation: usize) -> usize {
        // After the last step too, where it has no weight, so that what is drawn later is what diffusers draws.
        usize::from(self.ancestral)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels
            .original(self.levels.sigmas[evaluation], latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (sigma, next) = (
            self.levels.sigmas[step.evaluation],
            self.levels.sigmas[step.evaluation + 1],
        );
        let latents = &step.trajectory.latents;
        let original = self.levels.original(sigma, latents, step.output)?;
        let toward = |target: f32| weighted(&[(target / sigma, latents), (1.0 - target / sigma, &original)]);
        let moved = if self.ancestral {
            let (down, up) = ancestral(sigma, next);
            let moved = toward(down)?;
            weighted(&[(1.0, &moved), (up, &step.draw()?)])?
        } else {
            toward(next)?
        };
        step.trajectory.latents = moved;
        Ok(())
    }
}

/// How far to go down, and how much noise to add then, to get from the level `from` to the level `to`.
pub(crate) fn ancestral(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to).max(0.0) / (from * from))
        .sqrt()
        .min(to);
    ((to * to - up * up).sqrt(), up)
}
