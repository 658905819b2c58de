//! DPM-Solver++ for the stochastic equation, with an evaluation in the middle of each step.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022, as
//! k-diffusion's `sample_dpmpp_sde` and diffusers' `DPMSolverSDEScheduler` carry it out. Those take the two
//! noises of a step from one Brownian path; here they are what the source gives.

use candle_core::Tensor;

use crate::error::{Refusal, StepError};
use crate::euler::ancestral;
use crate::exploding::Exploding;
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Two evaluations a step, but for the last one, which is Euler's.
#[derive(Debug)]
pub(crate) struct DpmSde {
    levels: Exploding,
    /// The timesteps of the steps' middles.
    middles: Vec<f64>,
}

impl DpmSde {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let levels = Exploding::new(setup, false, None)?;
        let sigmas = setup.spread(setup.timesteps(setup.table.len()), None).sigmas;
        // The middle in the logarithm.
        let middles = sigmas
            .windows(2)
            .map(|pair| (pair[0].ln() + 0.5 * (pair[1].ln() - pair[0].ln())).exp());
        let middles = Exploding::told_of_middles(setup, &middles.collect::<Vec<_>>());
        Ok(Self { levels, middles })
    }

    fn sigma(&self, evaluation: usize) -> f32 {
        let (from, to) = self.ends(evaluation);
        if evaluation.is_multiple_of(2) {
            from
        } else {
            middle(from, to)
        }
    }

    /// The levels at which an evaluation's step begins and ends.
    fn ends(&self, evaluation: usize) -> (f32, f32) {
        (
            self.levels.sigmas[evaluation / 2],
            self.levels.sigmas[evaluation / 2 + 1],
        )
    }
}

impl Method for DpmSde {
    fn timesteps(&self) -> Vec<f32> {
        self.levels.interleaved(&self.middles)
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Exploding {
            sigma: self.sigma(evaluation),
        }
    }

    /// diffusers blends in the middle of a step with the noise of its end.
    fn blend_level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Exploding {
            sigma: self.levels.sigmas[evaluation.div_ceil(2)],
        }
    }

    fn initial_noise_scale(&self) -> f32 {
        self.levels.initial_noise_scale
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(evaluation / 2 + 1 < self.levels.steps())
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.levels.original(self.sigma(evaluation), latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        let (from, to) = self.ends(step.evaluation);
        let latents = step.trajectory.latents.clone();
        let original = self.original(step.evaluation, &latents, step.output)?;
        if to == 0.0 {
            step.trajectory.latents = original;
            return Ok(());
        }
        let first = step.evaluation.is_multiple_of(2);
        let begun = if first { latents } else { step.origin()? };
        let target = if first { middle(from, to) } else { to };
        let (down, up) = ancestral(from, target);
        // As `expm1` of the difference of the times, which are the negative logarithms of the levels.
        let share = -(down.ln() - from.ln()).exp_m1();
        let noise = step.draw()?;
        step.trajectory.latents = weighted(&[(down / from, &begun), (share, &original), (up, &noise)])?;
        step.trajectory.origin = first.then_some(begun);
        Ok(())
    }
}

/// The level in the middle of two, in the logarithm.
fn middle(from: f32, to: f32) -> f32 {
    let (start, end) = (-from.ln(), -to.ln());
    (-(start + (end - start) * 0.5)).exp()
}
