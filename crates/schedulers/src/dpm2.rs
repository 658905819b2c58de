//! An evaluation in the middle of each step: DPM-Solver-2, and DPM-Solver++ of the second order with ancestral steps.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps", 2022, algorithm 1,
//! as diffusers' `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler` carry it out, and k-diffusion's
//! `sample_dpmpp_2s_ancestral` over the noise levels of diffusers' `EulerDiscreteScheduler`.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::euler::ancestral;
use crate::exploding::Exploding;
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Two evaluations a step, but for the last one, which is Euler's.
#[derive(Debug)]
pub(crate) struct Dpm2 {
    levels: Exploding,
    /// What the network is told in the steps' middles.
    told_of_middles: Vec<f64>,
    /// Whether steps go further down than to the next level, and noise is added to come back to it.
    ancestral: bool,
    /// Whether the second evaluation's picture is kept instead of its direction.
    of_pictures: bool,
}

impl Dpm2 {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let of_pictures = setup.kind == SamplerKind::DpmPlusPlus2SAncestral;
        if of_pictures && setup.ends_at_least_noise()? {
            return Err(Refusal::Setting {
                name: "final_sigmas_type",
                value: "sigma_min".to_owned(),
            });
        }
        let mut method = Self {
            levels: Exploding::new(setup, false, None)?,
            told_of_middles: Vec::new(),
            ancestral: setup.kind != SamplerKind::Dpm2,
            of_pictures,
        };
        let middles: Vec<f64> = (0..method.levels.steps() - 1)
            .map(|step| f64::from(method.middle(step)))
            .collect();
        method.told_of_middles = Exploding::told_of_middles(setup, &middles);
        Ok(method)
    }

    /// The levels at which a step begins and, before noise is added, ends, and how much noise that is.
    fn ends(&self, step: usize) -> (f32, f32, f32) {
        let (from, to) = (self.levels.sigmas[step], self.levels.sigmas[step + 1]);
        let (down, up) = if self.ancestral {
            ancestral(from, to)
        } else {
            (to, 0.0)
        };
        (from, down, up)
    }

    /// The middle of a step in the logarithm.
    fn middle(&self, step: usize) -> f32 {
        let (from, down, _) = self.ends(step);
        (from.ln() + 0.5 * (down.ln() - from.ln())).exp()
    }

    fn sigma(&self, evaluation: usize) -> f32 {
        if evaluation.is_multiple_of(2) {
            self.levels.sigmas[evaluation / 2]
        } else {
            self.middle(evaluation / 2)
        }
    }
}

impl Method for Dpm2 {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.interleaved(&self.told_of_middles)
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(self.sigma(evaluation))
    }

    /// diffusers blends in the middle of a step with the noise of its end.
    fn blend_level(&self, evaluation: usize) -> NoiseLevel {
        self.levels.level(self.levels.sigmas[evaluation.div_ceil(2)])
    }

    fn initial_noise_scale(&self) -> f32 {
        self.levels.initial_noise_scale
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(self.ancestral && !evaluation.is_multiple_of(2))
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(self.sigma(evaluation), latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, down, up) = self.ends(step.evaluation / 2);
        let latents = step.trajectory.latents.clone();
        let original = self.original(step.evaluation, &latents, step.output)?;
        if step.evaluation.is_multiple_of(2) {
            let middle = self.middle(step.evaluation / 2);
            step.trajectory.latents = if down == 0.0 {
                original
            } else {
                step.trajectory.origin = Some(latents.clone());
                weighted(&[(middle / from, &latents), (1.0 - middle / from, &original)])?
            };
            return Ok(());
        }
        let origin = step.origin()?;
        let moved = if self.of_pictures {
            weighted(&[(down / from, &origin), (1.0 - down / from, &original)])?
        } else {
            let slope = (down - from) / self.sigma(step.evaluation);
            weighted(&[(1.0, &origin), (slope, &latents), (-slope, &original)])?
        };
        step.trajectory.latents = if self.ancestral {
            weighted(&[(1.0, &moved), (up, &step.draw()?)])?
        } else {
            moved
        };
        step.trajectory.origin = None;
        Ok(())
    }
}
