//! Noise levels of the samplers that go along the model's own timesteps: DDIM, DDPM, PNDM, LCM and TCD.

use candle_core::Tensor;

use crate::betas::NoiseTable;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, Prediction};
use crate::setup::Setup;

/// Timesteps with the model's noise table, and how predictions are read.
#[derive(Debug)]
pub(crate) struct Alphas {
    pub(crate) timesteps: Vec<i64>,
    table: NoiseTable,
    /// The variance that is left before the first timestep.
    last: f32,
    prediction: Prediction,
    clip: Option<f32>,
}

impl Alphas {
    /// `timesteps` of the model of `setup`, from the noise to the picture.
    pub(crate) fn new(setup: &Setup<'_>, timesteps: Vec<i64>) -> Result<Self, Refusal> {
        let usual = matches!(
            setup.kind,
            SamplerKind::Ddim | SamplerKind::Lcm | SamplerKind::Tcd
        );
        let whole = setup.kind == SamplerKind::Ddpm || setup.config.set_alpha_to_one.unwrap_or(usual);
        let alphas = Self {
            timesteps,
            table: setup.table.clone(),
            last: if whole { 1.0 } else { setup.table.alphas_cumprod[0] },
            prediction: setup.prediction,
            clip: setup.clip(),
        };
        let pure_noise = alphas
            .timesteps
            .iter()
            .any(|&timestep| alphas.at(timestep) == 0.0);
        if pure_noise && setup.prediction == Prediction::Epsilon {
            // What noise alone says of the noise says nothing of the picture.
            return Err(Refusal::Prediction {
                kind: setup.kind,
                prediction: setup.prediction.name(),
            });
        }
        Ok(alphas)
    }

    /// The variance that is left at `timestep`; before the first one, what the configuration says of the
    /// picture itself.
    pub(crate) fn at(&self, timestep: i64) -> f32 {
        self.table.alpha(timestep, self.last)
    }

    /// The noise at an evaluation.
    pub(crate) fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::of_alpha(self.at(self.timesteps[evaluation]))
    }

    /// The timesteps as the network is told them.
    pub(crate) fn told(&self) -> Vec<f32> {
        self.timesteps.iter().map(|&timestep| timestep as f32).collect()
    }

    /// The picture that `output` points to, clipped where the configuration says so.
    pub(crate) fn original(
        &self,
        evaluation: usize,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let original = self
            .level(evaluation)
            .original(self.prediction, latents, output)?;
        match self.clip {
            Some(limit) => original.clamp(-limit, limit),
            None => Ok(original),
        }
    }

    /// The noise that `output` says is in `latents` at `timestep`.
    pub(crate) fn noise(
        &self,
        timestep: i64,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        NoiseLevel::of_alpha(self.at(timestep)).noise(self.prediction, latents, output)
    }
}
