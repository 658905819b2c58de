//! Noise levels of the samplers that take latents as a picture with noise added to it: Euler, Heun, LMS and
//! DPM++ SDE.

use candle_core::Tensor;

use super::error::Refusal;
use super::level::{NoiseLevel, Prediction};
use super::setup::Setup;
use super::sigmas::Spacing;

/// The noise levels of a run, and how predictions are read.
#[derive(Debug)]
pub(super) struct Exploding {
    /// One more than there are steps.
    pub(super) sigmas: Vec<f32>,
    pub(super) timesteps: Vec<f64>,
    pub(super) initial_noise_scale: f32,
    prediction: Prediction,
    clip: Option<f32>,
}

impl Exploding {
    /// The levels that `setup` describes. Where `ends_at_least_noise` is not set the last one is 0.
    pub(super) fn new(
        setup: &Setup<'_>,
        ends_at_least_noise: bool,
        clip: Option<f32>,
    ) -> Result<Self, Refusal> {
        let spread = setup.spread(setup.timesteps(setup.table.len()), None);
        let mut sigmas: Vec<f32> = spread.sigmas.iter().map(|&sigma| sigma as f32).collect();
        if sigmas.iter().any(|sigma| !sigma.is_finite() || *sigma <= 0.0) {
            return Err(Refusal::Setting {
                name: "sigma_min and sigma_max",
                value: format!("{:?}", (setup.config.sigma_min, setup.config.sigma_max)),
            });
        }
        let most = sigmas.iter().fold(0.0, |most: f32, &sigma| most.max(sigma));
        let initial_noise_scale = if setup.spacing == Spacing::Leading {
            (most * most + 1.0).sqrt()
        } else {
            most
        };
        let least = setup.table.sigmas()[0];
        sigmas.push(if ends_at_least_noise { least } else { 0.0 });
        Ok(Self {
            sigmas,
            timesteps: spread.timesteps,
            initial_noise_scale,
            prediction: setup.prediction,
            clip,
        })
    }

    /// How many steps there are.
    pub(super) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The picture that `output` points to at noise of `sigma`.
    pub(super) fn original(
        &self,
        sigma: f32,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let original = NoiseLevel::Exploding { sigma }.original(self.prediction, latents, output)?;
        match self.clip {
            Some(limit) => original.clamp(-limit, limit),
            None => Ok(original),
        }
    }

    /// Numbers of two evaluations a step: the first of each step, and what `second` gives for all steps but
    /// the last, which has none.
    pub(super) fn interleaved(&self, second: &[f64]) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(2 * self.steps());
        for (step, &first) in self.timesteps.iter().enumerate() {
            numbers.push(first as f32);
            numbers.extend(second.get(step).map(|&number| number as f32));
        }
        numbers
    }
}
