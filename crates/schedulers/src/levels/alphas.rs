//! Noise levels of the samplers that use the model's own timesteps and `alphas_cumprod`: DDIM, DDPM, PNDM,
//! LCM and TCD.

use candle_core::{Result, Tensor};

use crate::error::Refusal;
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::prediction_type::PredictionType;
use crate::levels::setup::Setup;
use crate::levels::training_schedule::TrainingSchedule;
use crate::sampler_kind::SamplerKind;

/// The timesteps of a run with the model's `alphas_cumprod`.
#[derive(Debug)]
pub(crate) struct Alphas {
    pub(crate) timesteps: Vec<i64>,
    training: TrainingSchedule,
    /// `alphas_cumprod` before the first training timestep: 1 with `set_alpha_to_one`.
    final_alpha_cumprod: f32,
    prediction_type: PredictionType,
    clip_sample_range: Option<f32>,
}

impl Alphas {
    /// The levels of `timesteps`, from high to low noise, for the model of `setup`.
    pub(crate) fn new(setup: &Setup<'_>, timesteps: Vec<i64>) -> std::result::Result<Self, Refusal> {
        let default = matches!(
            setup.kind,
            SamplerKind::Ddim | SamplerKind::Lcm | SamplerKind::Tcd
        );
        let to_one = setup.kind == SamplerKind::Ddpm || setup.config.set_alpha_to_one.unwrap_or(default);
        let first = setup.training.alphas_cumprod[0];
        let alphas = Self {
            timesteps,
            training: setup.training.clone(),
            final_alpha_cumprod: if to_one { 1.0 } else { first },
            prediction_type: setup.prediction_type,
            clip_sample_range: setup.clip_sample_range(),
        };
        let pure_noise = alphas
            .timesteps
            .iter()
            .any(|&timestep| alphas.alpha_cumprod(timestep) == 0.0);
        if pure_noise && setup.prediction_type == PredictionType::Epsilon {
            // In pure noise, predicted noise determines no original sample.
            return Err(Refusal::Prediction {
                kind: setup.kind,
                prediction: setup.prediction_type.name(),
            });
        }
        Ok(alphas)
    }

    /// `alphas_cumprod` at `timestep`; `final_alpha_cumprod` at a negative one.
    pub(crate) fn alpha_cumprod(&self, timestep: i64) -> f32 {
        self.training.alpha_cumprod(timestep, self.final_alpha_cumprod)
    }

    /// The noise in `latents` that `model_output`, the network's at `timestep`, predicts.
    pub(crate) fn predicted_noise_at(
        &self,
        timestep: i64,
        latents: &Tensor,
        model_output: &Tensor,
    ) -> Result<Tensor> {
        let level = NoiseLevel::from_alpha_cumprod(self.alpha_cumprod(timestep));
        level.predicted_noise(self.prediction_type, latents, model_output)
    }
}

impl NoiseLevels for Alphas {
    fn timesteps(&self) -> Vec<f32> {
        self.timesteps.iter().map(|&timestep| timestep as f32).collect()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::from_alpha_cumprod(self.alpha_cumprod(self.timesteps[evaluation]))
    }

    fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    fn clip_sample_range(&self) -> Option<f32> {
        self.clip_sample_range
    }
}
