//! Noise levels of models that are preconditioned as EDM does.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 5 and table 1; defaults
//! are those of diffusers' `EDMEulerScheduler` and `EDMDPMSolverMultistepScheduler`. Playground 2.5 and CosXL are drawn so.

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::level::Prediction;
use crate::schedule_kind::ScheduleKind;
use crate::sigmas;

/// The noise levels of a run, and how predictions are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edm {
    /// One more than there are steps.
    pub(crate) sigmas: Vec<f32>,
    /// A quarter of the levels' logarithms.
    pub(crate) timesteps: Vec<f32>,
    /// Standard deviation of the pictures that the network was trained with.
    pub(crate) data: f32,
    pub(crate) initial_noise_scale: f32,
    pub(crate) prediction: Prediction,
    /// Never automatic.
    pub(crate) schedule: ScheduleKind,
    pub(crate) ends_at_least_noise: bool,
}

impl Edm {
    pub(crate) fn new(
        config: &SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
    ) -> Result<Self, Refusal> {
        let refused = |name, value: &dyn std::fmt::Display| Refusal::Setting {
            name,
            value: value.to_string(),
        };
        let (least, most) = (1, config.train_timesteps());
        if steps < least || steps > most {
            return Err(Refusal::Steps {
                kind,
                steps,
                least,
                most,
            });
        }
        let schedule = match (schedule, config.sigma_schedule.as_deref()) {
            (ScheduleKind::Automatic, None | Some("karras")) => ScheduleKind::Karras,
            (ScheduleKind::Automatic, Some("exponential")) => ScheduleKind::Exponential,
            (ScheduleKind::Automatic, Some(other)) => return Err(refused("sigma_schedule", &other)),
            (other, _) => other,
        };
        let prediction = match config.prediction_type.as_deref() {
            None | Some("epsilon") => Prediction::Epsilon,
            Some("v_prediction") => Prediction::Velocity,
            Some(other) => return Err(refused("prediction_type", &other)),
        };
        let ends_at_least_noise = match config.final_sigmas_type.as_deref() {
            None | Some("zero") => false,
            Some("sigma_min") => true,
            Some(other) => return Err(refused("final_sigmas_type", &other)),
        };
        let smallest = config.sigma_min.unwrap_or(0.002);
        let largest = config.sigma_max.unwrap_or(80.0);
        let data = config.sigma_data.unwrap_or(0.5);
        let rho = config.rho.unwrap_or(7.0);
        let proper = |value: f64| value.is_finite() && value > 0.0;
        for (name, value) in [
            ("sigma_min", smallest),
            ("sigma_max", largest),
            ("sigma_data", data),
            ("rho", rho),
        ] {
            if !proper(value) {
                return Err(refused(name, &value));
            }
        }
        let curve = match schedule {
            ScheduleKind::Karras => Some(sigmas::karras(rho, smallest, largest, steps)),
            other => sigmas::curve(other, smallest, largest, steps),
        };
        let levels = curve.ok_or(Refusal::Schedule { kind, schedule })?;
        if !levels.iter().all(|&level| proper(f64::from(level as f32))) {
            return Err(refused("rho", &rho));
        }
        let mut sigmas: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
        let timesteps = sigmas.iter().map(|sigma| 0.25 * sigma.ln()).collect();
        sigmas.push(if ends_at_least_noise { smallest as f32 } else { 0.0 });
        Ok(Self {
            sigmas,
            timesteps,
            data: data as f32,
            initial_noise_scale: (largest * largest + 1.0).sqrt() as f32,
            prediction,
            schedule,
            ends_at_least_noise,
        })
    }
}
