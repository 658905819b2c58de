//! Variance-exploding noise levels (`sample + sigma * noise`): for Euler, Heun, LMS, DPM2, and the samplers
//! of DPM-Solver++ that k-diffusion computes in this form.

use crate::error::Refusal;
use crate::levels::NoiseLevels;
use crate::levels::edm::Edm;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::prediction_type::PredictionType;
use crate::levels::setup::Setup;
use crate::levels::sigmas;
use crate::levels::timestep_spacing::TimestepSpacing;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// The noise levels of a run.
#[derive(Debug)]
pub(crate) struct VarianceExploding {
    /// One per step, and one after the last step.
    pub(crate) sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f64>,
    initial_noise_scale: f32,
    prediction_type: PredictionType,
    clip_sample_range: Option<f32>,
    /// Standard deviation of the training data of an EDM-preconditioned network.
    sigma_data: Option<f32>,
}

impl VarianceExploding {
    /// The levels that `setup` describes. The last one is 0, or with `ends_at_sigma_min` the lowest training
    /// level.
    pub(crate) fn new(
        setup: &Setup<'_>,
        ends_at_sigma_min: bool,
        clip_sample_range: Option<f32>,
    ) -> Result<Self, Refusal> {
        let mut schedule = setup.noise_schedule(setup.timesteps(setup.training.len()), None);
        let log_linear = setup.kind == SamplerKind::Euler
            && setup.config.interpolation_type.as_deref() == Some("log_linear");
        let mut last = ends_at_sigma_min.then(|| setup.training.sigmas()[0]);
        if log_linear {
            let levels = log_linear_sigmas(setup);
            let (first, end) = (levels[0], levels[levels.len() - 1]);
            match sigmas::curve(setup.schedule, end, first, setup.steps) {
                Some(sigmas) => {
                    schedule.timesteps = setup.to_timesteps(&sigmas);
                    schedule.sigmas = sigmas;
                }
                None => {
                    // With this interpolation diffusers ignores `final_sigmas_type`.
                    last = Some(end as f32);
                    schedule.sigmas = levels[..setup.steps].to_vec();
                }
            }
        }
        if setup.schedule == ScheduleKind::Karras
            && matches!(setup.kind, SamplerKind::Dpm2 | SamplerKind::Dpm2Ancestral)
        {
            let timesteps = schedule.timesteps.iter_mut();
            timesteps.for_each(|timestep| *timestep = timestep.round_ties_even());
        }
        let mut sigmas: Vec<f32> = schedule.sigmas.iter().map(|&sigma| sigma as f32).collect();
        if sigmas.iter().any(|sigma| !sigma.is_finite() || *sigma <= 0.0) {
            return Err(Refusal::setting(
                "sigma_min and sigma_max",
                format!("{:?}", (setup.config.sigma_min, setup.config.sigma_max)),
            ));
        }
        let highest = sigmas.iter().fold(0.0, |highest: f32, &sigma| highest.max(sigma));
        let initial_noise_scale = if setup.spacing == TimestepSpacing::Leading {
            (highest * highest + 1.0).sqrt()
        } else {
            highest
        };
        let timesteps = if setup.is_continuous() {
            continuous_timesteps(&schedule.sigmas)
        } else {
            schedule.timesteps
        };
        sigmas.push(last.unwrap_or(0.0));
        Ok(Self {
            sigmas,
            timesteps,
            initial_noise_scale,
            prediction_type: setup.prediction_type,
            clip_sample_range,
            sigma_data: None,
        })
    }

    /// The levels of an EDM-preconditioned model.
    pub(crate) fn from_edm(edm: Edm) -> Self {
        Self {
            sigmas: edm.sigmas,
            timesteps: edm.timesteps.into_iter().map(f64::from).collect(),
            initial_noise_scale: edm.initial_noise_scale,
            prediction_type: edm.prediction_type,
            clip_sample_range: None,
            sigma_data: Some(edm.sigma_data),
        }
    }

    /// The noise level of standard deviation `sigma`, for solvers that evaluate the network between the
    /// levels of steps.
    pub(crate) fn level_of(&self, sigma: f32) -> NoiseLevel {
        match self.sigma_data {
            Some(sigma_data) => NoiseLevel::Edm { sigma, sigma_data },
            None => NoiseLevel::VarianceExploding { sigma },
        }
    }

    /// The timesteps that the network gets for `sigmas` in the middle of steps.
    pub(crate) fn middle_timesteps(setup: &Setup<'_>, sigmas: &[f64]) -> Vec<f64> {
        if setup.is_continuous() {
            continuous_timesteps(sigmas)
        } else {
            setup.to_timesteps(sigmas)
        }
    }

    /// The number of steps.
    pub(crate) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Timesteps for two evaluations per step: that of the step, and for all steps but the last that of
    /// `second`.
    pub(crate) fn interleaved(&self, second: &[f64]) -> Vec<f32> {
        let mut timesteps = Vec::with_capacity(2 * self.steps());
        for (step, &first) in self.timesteps.iter().enumerate() {
            timesteps.push(first as f32);
            timesteps.extend(second.get(step).map(|&timestep| timestep as f32));
        }
        timesteps
    }
}

impl NoiseLevels for VarianceExploding {
    fn timesteps(&self) -> Vec<f32> {
        self.interleaved(&[])
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        self.level_of(self.sigmas[evaluation])
    }

    fn initial_noise_scale(&self) -> f32 {
        self.initial_noise_scale
    }

    fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    fn clip_sample_range(&self) -> Option<f32> {
        self.clip_sample_range
    }
}

/// The timesteps of networks that are trained with continuous ones: a quarter of the logarithm of each level.
fn continuous_timesteps(sigmas: &[f64]) -> Vec<f64> {
    sigmas.iter().map(|sigma| 0.25 * sigma.ln()).collect()
}

/// `interpolation_type: log_linear`: levels from the highest to the lowest of the training, evenly spaced in
/// the logarithm, one more than there are steps.
fn log_linear_sigmas(setup: &Setup<'_>) -> Vec<f64> {
    let table = setup.training.sigmas();
    let (lowest, highest) = (f64::from(table[0]), f64::from(table[table.len() - 1]));
    let logarithms = sigmas::linspace(highest.ln(), lowest.ln(), setup.steps + 1);
    logarithms.into_iter().map(f64::exp).collect()
}
