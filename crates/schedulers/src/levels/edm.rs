//! Noise levels of EDM-preconditioned models, such as Playground 2.5 and CosXL.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 5 and
//! table 1, with the defaults of diffusers' `EDMEulerScheduler` and `EDMDPMSolverMultistepScheduler`.

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::levels::prediction_type::PredictionType;
use crate::levels::sigmas;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// The noise levels of a run and the model's preconditioning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edm {
    /// One more than there are steps.
    pub(crate) sigmas: Vec<f32>,
    /// A quarter of the logarithm of each level.
    pub(crate) timesteps: Vec<f32>,
    /// Standard deviation of the training data.
    pub(crate) sigma_data: f32,
    pub(crate) initial_noise_scale: f32,
    pub(crate) prediction_type: PredictionType,
    /// Never automatic.
    pub(crate) schedule: ScheduleKind,
    pub(crate) ends_at_sigma_min: bool,
}

impl Edm {
    /// The levels of `steps` steps along `schedule`, or along the configuration's `sigma_schedule`.
    pub(crate) fn new(
        config: &SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
    ) -> Result<Self, Refusal> {
        Refusal::check_steps(kind, steps, 1..=config.train_timesteps())?;
        let schedule = match (schedule, config.sigma_schedule.as_deref()) {
            (ScheduleKind::Automatic, None | Some("karras")) => ScheduleKind::Karras,
            (ScheduleKind::Automatic, Some("exponential")) => ScheduleKind::Exponential,
            (ScheduleKind::Automatic, Some(other)) => return Err(Refusal::setting("sigma_schedule", other)),
            (other, _) => other,
        };
        let prediction_type = match config.prediction_type.as_deref() {
            None | Some("epsilon") => PredictionType::Epsilon,
            Some("v_prediction") => PredictionType::VPrediction,
            Some(other) => return Err(Refusal::setting("prediction_type", other)),
        };
        let ends_at_sigma_min = match config.final_sigmas_type.as_deref() {
            None | Some("zero") => false,
            Some("sigma_min") => true,
            Some(other) => return Err(Refusal::setting("final_sigmas_type", other)),
        };
        let sigma_min = config.sigma_min.unwrap_or(0.002);
        let sigma_max = config.sigma_max.unwrap_or(80.0);
        let sigma_data = config.sigma_data.unwrap_or(0.5);
        let rho = config.rho.unwrap_or(7.0);
        let proper = |value: f64| value.is_finite() && value > 0.0;
        for (name, value) in [
            ("sigma_min", sigma_min),
            ("sigma_max", sigma_max),
            ("sigma_data", sigma_data),
            ("rho", rho),
        ] {
            if !proper(value) {
                return Err(Refusal::setting(name, value));
            }
        }
        let curve = match schedule {
            ScheduleKind::Karras => Some(sigmas::karras(rho, sigma_min, sigma_max, steps)),
            other => sigmas::curve(other, sigma_min, sigma_max, steps),
        };
        let levels = curve.ok_or(Refusal::Schedule { kind, schedule })?;
        if !levels.iter().all(|&level| proper(f64::from(level as f32))) {
            return Err(Refusal::setting("rho", rho));
        }
        let mut sigmas: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
        let timesteps = sigmas.iter().map(|sigma| 0.25 * sigma.ln()).collect();
        sigmas.push(if ends_at_sigma_min { sigma_min as f32 } else { 0.0 });
        Ok(Self {
            sigmas,
            timesteps,
            sigma_data: sigma_data as f32,
            initial_noise_scale: (sigma_max * sigma_max + 1.0).sqrt() as f32,
            prediction_type,
            schedule,
            ends_at_sigma_min,
        })
    }
}
