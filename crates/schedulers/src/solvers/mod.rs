//! The solvers: one file per sampling method, each with its step from one noise level to the next.

mod ancestral;
pub(crate) mod ddim;
pub(crate) mod ddpm;
pub(crate) mod deis;
pub(crate) mod dpm2;
pub(crate) mod dpm3m_sde;
pub(crate) mod dpm_multistep;
pub(crate) mod dpm_sde;
pub(crate) mod dpm_singlestep;
mod dpm_solver;
pub(crate) mod euler;
pub(crate) mod flow_match;
pub(crate) mod heun;
pub(crate) mod lcm;
pub(crate) mod lms;
pub(crate) mod pndm;
pub(crate) mod pndm_runge_kutta;
pub(crate) mod tcd;
pub(crate) mod unipc;

use std::fmt::Debug;

use candle_core::{Shape, Tensor};

use crate::error::StepError;
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::sampler_kind::SamplerKind;
use crate::sampler_state::SamplerState;

/// The source of a step's noise: returns standard normal numbers of the given shape.
pub type NoiseSource<'a> = dyn FnMut(&Shape) -> candle_core::Result<Tensor> + 'a;

/// A sampling method with the noise levels of a run. Evaluations are counted over the whole schedule,
/// including those that image-to-image skips.
#[doc(alias = "Method")]
pub(crate) trait Solver: Debug + Send + Sync {
    /// The noise levels of the run.
    fn levels(&self) -> &dyn NoiseLevels;

    /// The timestep that the network gets, for each evaluation.
    fn timesteps(&self) -> Vec<f32> {
        self.levels().timesteps()
    }

    /// The noise level of the latents at an evaluation.
    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.levels().level(evaluation)
    }

    /// The noise level at which an original image is blended into those latents (inpainting).
    fn blend_level(&self, evaluation: usize) -> NoiseLevel {
        self.level(evaluation)
    }

    /// How many times the step draws noise.
    fn noise_draws(&self, _evaluation: usize) -> usize {
        0
    }

    /// The original sample that the network's output predicts.
    fn predicted_original_sample(
        &self,
        evaluation: usize,
        latents: &Tensor,
        model_output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let level = self.level(evaluation);
        self.levels()
            .predicted_original_sample_at(level, latents, model_output)
    }

    /// Advances the state by one evaluation.
    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError>;
}

/// The network's output of one evaluation, and the state that it advances.
pub(crate) struct Step<'a, 'noise> {
    pub(crate) kind: SamplerKind,
    /// The evaluation, counted over the whole schedule.
    pub(crate) evaluation: usize,
    /// The number of evaluations that this image has had.
    pub(crate) done: usize,
    pub(crate) model_output: &'a Tensor,
    pub(crate) state: &'a mut SamplerState,
    pub(crate) noise: &'a mut NoiseSource<'noise>,
}

impl Step<'_, '_> {
    /// Fresh noise of the latents' shape.
    pub(crate) fn draw_noise(&mut self) -> Result<Tensor, StepError> {
        Ok((self.noise)(self.state.latents.shape())?)
    }

    /// The output that was stored `age` evaluations before the last one.
    pub(crate) fn earlier_output(&self, age: usize) -> Result<Tensor, StepError> {
        let found = self.state.output(age).cloned();
        found.map_err(|missing| self.missing(missing))
    }

    /// The latents at the beginning of the step.
    pub(crate) fn origin(&self) -> Result<Tensor, StepError> {
        let found = self.state.origin().cloned();
        found.map_err(|missing| self.missing(missing))
    }

    fn missing(&self, missing: String) -> StepError {
        StepError::State {
            kind: self.kind,
            evaluation: self.done,
            missing,
        }
    }
}
