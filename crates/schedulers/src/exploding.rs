//! Noise levels of the samplers that take latents as a picture with noise added to it: Euler, Heun, LMS,
//! DPM2, and those of DPM++ that k-diffusion has in this form.

use candle_core::Tensor;

use crate::edm::Edm;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, Prediction};
use crate::schedule_kind::ScheduleKind;
use crate::setup::Setup;
use crate::sigmas::{self, Spacing};

/// The noise levels of a run, and how predictions are read.
#[derive(Debug)]
pub(crate) struct Exploding {
    /// One more than there are steps.
    pub(crate) sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f64>,
    pub(crate) initial_noise_scale: f32,
    prediction: Prediction,
    clip: Option<f32>,
    /// Standard deviation of the pictures that a network which is preconditioned as EDM does was trained with.
    data: Option<f32>,
}

impl Exploding {
    /// The levels that `setup` describes. Where `ends_at_least_noise` is not set the last one is 0.
    pub(crate) fn new(
        setup: &Setup<'_>,
        ends_at_least_noise: bool,
        clip: Option<f32>,
    ) -> Result<Self, Refusal> {
        let mut spread = setup.spread(setup.timesteps(setup.table.len()), None);
        let logarithmic = setup.kind == SamplerKind::Euler
            && setup.config.interpolation_type.as_deref() == Some("log_linear");
        let mut last = ends_at_least_noise.then(|| setup.table.sigmas()[0]);
        if logarithmic {
            let levels = even_logarithms(setup);
            let (first, end) = (levels[0], levels[levels.len() - 1]);
            match sigmas::curve(setup.schedule, end, first, setup.steps) {
                Some(sigmas) => {
                    spread.timesteps = setup.to_timesteps(&sigmas);
                    spread.sigmas = sigmas;
                }
                None => {
                    // The last step ends where they do, whatever comes then.
                    last = Some(end as f32);
                    spread.sigmas = levels[..setup.steps].to_vec();
                }
            }
        }
        if setup.schedule == ScheduleKind::Karras
            && matches!(setup.kind, SamplerKind::Dpm2 | SamplerKind::Dpm2Ancestral)
        {
            let timesteps = spread.timesteps.iter_mut();
            timesteps.for_each(|timestep| *timestep = timestep.round_ties_even());
        }
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
        let timesteps = if setup.is_continuous() {
            continuous(&spread.sigmas)
        } else {
            spread.timesteps
        };
        sigmas.push(last.unwrap_or(0.0));
        Ok(Self {
            sigmas,
            timesteps,
            initial_noise_scale,
            prediction: setup.prediction,
            clip,
            data: None,
        })
    }

    /// The levels of a model that is preconditioned as EDM does.
    pub(crate) fn of_edm(edm: Edm) -> Self {
        Self {
            sigmas: edm.sigmas,
            timesteps: edm.timesteps.into_iter().map(f64::from).collect(),
            initial_noise_scale: edm.initial_noise_scale,
            prediction: edm.prediction,
            clip: None,
            data: Some(edm.data),
        }
    }

    /// What noise of `sigma` means for latents.
    pub(crate) fn level(&self, sigma: f32) -> NoiseLevel {
        match self.data {
            Some(data) => NoiseLevel::Edm { sigma, data },
            None => NoiseLevel::Exploding { sigma },
        }
    }

    /// What the network is told of levels between those of the steps.
    pub(crate) fn told_of_middles(setup: &Setup<'_>, middles: &[f64]) -> Vec<f64> {
        if setup.is_continuous() {
            continuous(middles)
        } else {
            setup.to_timesteps(middles)
        }
    }

    /// How many steps there are.
    pub(crate) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The picture that `output` points to at noise of `sigma`.
    pub(crate) fn original(
        &self,
        sigma: f32,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let original = self.level(sigma).original(self.prediction, latents, output)?;
        match self.clip {
            Some(limit) => original.clamp(-limit, limit),
            None => Ok(original),
        }
    }

    /// Numbers of two evaluations a step: the first of each step, and what `second` gives for all steps but
    /// the last, which has none.
    pub(crate) fn interleaved(&self, second: &[f64]) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(2 * self.steps());
        for (step, &first) in self.timesteps.iter().enumerate() {
            numbers.push(first as f32);
            numbers.extend(second.get(step).map(|&number| number as f32));
        }
        numbers
    }
}

/// What networks are told that know noise by a quarter of its logarithm.
fn continuous(sigmas: &[f64]) -> Vec<f64> {
    sigmas.iter().map(|sigma| 0.25 * sigma.ln()).collect()
}

/// Levels from the most noise of the training to the least, evenly in the logarithm, one more than there are steps.
fn even_logarithms(setup: &Setup<'_>) -> Vec<f64> {
    let table = setup.table.sigmas();
    let (least, most) = (f64::from(table[0]), f64::from(table[table.len() - 1]));
    let logarithms = sigmas::evenly(most.ln(), least.ln(), setup.steps + 1);
    logarithms.into_iter().map(f64::exp).collect()
}
