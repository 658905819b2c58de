//! What a sampling method is made of.

use std::fmt::Debug;

use candle_core::{Shape, Tensor};

use crate::error::StepError;
use crate::kind::SamplerKind;
use crate::level::NoiseLevel;
use crate::trajectory::Trajectory;

/// Where the noise of a step comes from: standard normal numbers of the shape that is asked for.
pub type NoiseSource<'a> = dyn FnMut(&Shape) -> candle_core::Result<Tensor> + 'a;

/// A method with its noise levels. Evaluations are counted over the whole schedule, those that a picture with
/// less than full noise passes over among them.
pub(crate) trait Method: Debug + Send + Sync {
    /// What the network is told of the noise, one number an evaluation.
    fn timesteps(&self) -> Vec<f32>;

    /// The noise in the latents that the network is asked about.
    fn level(&self, evaluation: usize) -> NoiseLevel;

    /// The noise that an original is given to be blended into those latents.
    fn blend_level(&self, evaluation: usize) -> NoiseLevel {
        self.level(evaluation)
    }

    /// What the first latents are made of noise with.
    fn initial_noise_scale(&self) -> f32 {
        1.0
    }

    /// How many times the step draws noise.
    fn noises(&self, _evaluation: usize) -> usize {
        0
    }

    /// The picture that a prediction points to.
    fn original(&self, evaluation: usize, latents: &Tensor, output: &Tensor) -> candle_core::Result<Tensor>;

    /// Takes the trajectory past one evaluation.
    fn step(&self, step: Step<'_, '_>) -> Result<(), StepError>;
}

/// One evaluation's result and what is to be led on with it.
pub(crate) struct Step<'a, 'noise> {
    pub(crate) kind: SamplerKind,
    /// The evaluation, counted over the whole schedule.
    pub(crate) evaluation: usize,
    /// How many evaluations this picture has behind it.
    pub(crate) done: usize,
    pub(crate) output: &'a Tensor,
    pub(crate) trajectory: &'a mut Trajectory,
    pub(crate) noise: &'a mut NoiseSource<'noise>,
}

impl Step<'_, '_> {
    /// Fresh noise of the latents' shape.
    pub(crate) fn draw(&mut self) -> Result<Tensor, StepError> {
        Ok((self.noise)(self.trajectory.latents.shape())?)
    }

    /// What the evaluation `age` before the last one gave.
    pub(crate) fn earlier(&self, age: usize) -> Result<Tensor, StepError> {
        let found = self.trajectory.output(age).cloned();
        found.map_err(|missing| self.broken(missing))
    }

    /// The latents that the step began with.
    pub(crate) fn origin(&self) -> Result<Tensor, StepError> {
        let found = self.trajectory.origin().cloned();
        found.map_err(|missing| self.broken(missing))
    }

    fn broken(&self, missing: String) -> StepError {
        StepError::Trajectory {
            kind: self.kind,
            evaluation: self.done,
            missing,
        }
    }
}
