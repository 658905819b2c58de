//! The process that the model was trained to turn back, noise at each step: denoising diffusion probabilistic
//! models.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 6 and 7; the timesteps are those of
//! diffusers' `DDPMScheduler`.

use candle_core::Tensor;

use crate::alphas::Alphas;
use crate::error::{Refusal, StepError};
use crate::level::{NoiseLevel, weighted};
use crate::method::{Method, Step};
use crate::setup::Setup;

/// Each step draws from the distribution of the latents one step earlier.
#[derive(Debug)]
pub(crate) struct Ddpm {
    alphas: Alphas,
    /// Whether the noise of a step is all that its step added, instead of what is left of it when the picture
    /// is known.
    large_variance: bool,
}

impl Ddpm {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let large_variance = match setup.config.variance_type.as_deref() {
            None | Some("fixed_small" | "fixed_small_log") => false,
            Some("fixed_large") => true,
            Some(other) => {
                return Err(Refusal::Setting {
                    name: "variance_type",
                    value: other.to_owned(),
                });
            }
        };
        Ok(Self {
            alphas: Alphas::new(setup, setup.whole_timesteps())?,
            large_variance,
        })
    }
}

impl Method for Ddpm {
    fn timesteps(&self) -> Vec<f32> {
        self.alphas.told()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.alphas.level(evaluation)
    }

    fn noises(&self, evaluation: usize) -> usize {
        usize::from(self.alphas.timesteps[evaluation] > 0)
    }

    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor> {
        self.alphas.original(evaluation, latents, output)
    }

    fn step(&self, mut step: Step<'_, '_>) -> Result<(), StepError> {
        const LEAST_VARIANCE: f32 = 1e-20;
        let left = self.alphas.at(self.alphas.timesteps[step.evaluation]);
        let left_after = match self.alphas.timesteps.get(step.evaluation + 1) {
            Some(&next) => self.alphas.at(next),
            None => self.alphas.at(-1),
        };
        let kept = left / left_after;
        let added = 1.0 - kept;
        let share = (1.0 - left_after) / (1.0 - left);

        let latents = &step.trajectory.latents;
        let original = self.alphas.original(step.evaluation, latents, step.output)?;
        let of_original = left_after.sqrt() * added / (1.0 - left);
        let mut moved = weighted(&[(of_original, &original), (kept.sqrt() * share, latents)])?;
        if self.noises(step.evaluation) > 0 {
            let variance = if self.large_variance {
                added
            } else {
                (share * added).max(LEAST_VARIANCE)
            };
            moved = weighted(&[(1.0, &moved), (variance.sqrt(), &step.draw()?)])?;
        }
        step.trajectory.latents = moved;
        Ok(())
    }
}
