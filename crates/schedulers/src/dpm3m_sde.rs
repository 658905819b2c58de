//! DPM-Solver++ for the stochastic equation over three predictions.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, as k-diffusion's
//! `sample_dpmpp_3m_sde` carries it out, over the noise levels of diffusers' `EulerDiscreteScheduler`. (diffusers'
//! `DPMSolverMultistepScheduler` of order 3 is another: it has the sign of a constant reversed, takes the second order at the
//! middle, and ends in lower orders.) k-diffusion takes noise from one Brownian path; here it is what the source gives.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::exploding::Exploding;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// How many predictions a step builds on.
const ORDER: usize = 3;

/// Steps along a polynomial through the pictures of the last predictions, with noise.
#[derive(Debug)]
pub(crate) struct Dpm3MSde(Exploding);

impl Dpm3MSde {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        if setup.ends_at_least_noise()? {
            return Err(Refusal::Setting {
                name: "final_sigmas_type",
                value: "sigma_min".to_owned(),
            });
        }
        Ok(Self(Exploding::new(setup, false, None)?))
    }

    /// How far the step of an evaluation goes, in the logarithm.
    fn length(&self, evaluation: usize) -> f32 {
        self.0.sigmas[evaluation].ln() - self.0.sigmas[evaluation + 1].ln()
    }
}

impl Method for Dpm3MSde {
    fn timesteps(&self) -> Vec<f32> {
        self.0.interleaved(&[])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.0.level(self.0.sigmas[evaluation])
    }

    fn initial_noise_scale(&self) -> f32 {
        self.0.initial_noise_scale
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(evaluation + 1 < self.0.steps())
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.0.original(self.0.sigmas[evaluation], latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let evaluation = step.evaluation;
        let newest = self.original(evaluation, &step.trajectory.latents, step.output)?;
        if self.noises(evaluation) == 0 {
            step.trajectory.latents = newest;
            return Ok(());
        }
        let length = self.length(evaluation);
        let left = (-2.0 * length).exp_m1();
        let mut moved = weighted(&[
            ((-2.0 * length).exp(), &step.trajectory.latents),
            (-left, &newest),
        ])?;
        if step.done > 0 {
            let of_slope = left / (2.0 * length) + 1.0;
            let before = step.earlier(0)?;
            let nearest = self.length(evaluation - 1) / length;
            let slope = weighted(&[(1.0 / nearest, &newest), (-1.0 / nearest, &before)])?;
            if step.done == 1 {
                moved = weighted(&[(1.0, &moved), (of_slope, &slope)])?;
            } else {
                let next = self.length(evaluation - 2) / length;
                let older = weighted(&[(1.0 / next, &before), (-1.0 / next, &step.earlier(1)?)])?;
                let change = weighted(&[(1.0, &slope), (-1.0, &older)])?;
                let both = nearest + next;
                let slope = weighted(&[(1.0, &slope), (nearest / both, &change)])?;
                let of_curvature = of_slope / (2.0 * length) - 0.5;
                moved = weighted(&[(1.0, &moved), (of_slope, &slope), (-of_curvature / both, &change)])?;
            }
        }
        let noise = step.draw()?;
        let of_noise = self.0.sigmas[evaluation + 1] * (-left).sqrt();
        step.trajectory.latents = weighted(&[(1.0, &moved), (of_noise, &noise)])?;
        step.trajectory.remember(newest, ORDER - 1);
        Ok(())
    }
}
