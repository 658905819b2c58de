//! Noise levels of rectified flow, and Euler steps between them.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024. The noise
//! levels are those of diffusers' `FlowMatchEulerDiscreteScheduler`, which applies the timestep shift twice:
//! to the lowest level, and to the levels between it and the highest.

use candle_core::{Result, Tensor};

use crate::config::flow_match::FlowMatchEulerConfig;
use crate::levels::NoiseLevels;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::prediction_type::PredictionType;
use crate::levels::sigmas;
use crate::schedule_kind::ScheduleKind;

/// The noise levels of a run with a model of rectified flow.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowMatchEuler {
    /// One per step, and 0 after the last.
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl FlowMatchEuler {
    /// `steps` noise levels for an image of `patches` patches, on which the shift depends with
    /// `use_dynamic_shifting`.
    pub fn new(config: &FlowMatchEulerConfig, steps: usize, patches: usize) -> Self {
        Self::with_schedule(config, ScheduleKind::Normal, steps, patches)
    }

    /// `steps` noise levels along `schedule`. `sgm_uniform` spaces the steps evenly from pure noise before
    /// the shift, as diffusers' pipelines for Flux do.
    pub(crate) fn with_schedule(
        config: &FlowMatchEulerConfig,
        schedule: ScheduleKind,
        steps: usize,
        patches: usize,
    ) -> Self {
        let train = config.num_train_timesteps as f32;
        let mut shifted: Vec<f64> = unshifted(config, schedule, steps)
            .into_iter()
            .map(|sigma| {
                if config.use_dynamic_shifting {
                    let shift = config.dynamic_shift(patches);
                    shift / (shift + (1.0 / sigma - 1.0))
                } else {
                    config.shift * sigma / (1.0 + (config.shift - 1.0) * sigma)
                }
            })
            .collect();
        if let Some(terminal) = config.shift_terminal.filter(|&terminal| terminal != 0.0) {
            stretch_to_terminal(&mut shifted, terminal);
        }
        let ends = (shifted.last().copied(), shifted.first().copied());
        let curve = match ends {
            (Some(sigma_min), Some(sigma_max)) => sigmas::curve(schedule, sigma_min, sigma_max, steps),
            _ => None,
        };
        let levels = curve.unwrap_or(shifted);
        let mut sigmas: Vec<f32> = levels.into_iter().map(|sigma| sigma as f32).collect();
        let timesteps = sigmas.iter().map(|sigma| sigma * train).collect();
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The timestep that the network gets for each step: `num_train_timesteps * sigma`.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The noise level before each step, and 0 after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The latents after `step`: Euler's method along `velocity`, the network's prediction for `latents` at
    /// the noise level of the step. Both are 32-bit floats of one shape.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn step(&self, step: usize, latents: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let distance = self.sigmas[step + 1] - self.sigmas[step];
        latents + (velocity * f64::from(distance))?
    }
}

impl NoiseLevels for FlowMatchEuler {
    fn timesteps(&self) -> Vec<f32> {
        self.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::Flow {
            sigma: self.sigmas[evaluation],
        }
    }

    fn prediction_type(&self) -> PredictionType {
        PredictionType::Flow
    }
}

/// The noise levels of the steps before the timestep shift.
fn unshifted(config: &FlowMatchEulerConfig, schedule: ScheduleKind, steps: usize) -> Vec<f64> {
    if schedule == ScheduleKind::SgmUniform {
        // diffusers converts sigmas from a pipeline to 32 bits.
        let levels = sigmas::linspace(1.0, 1.0 / steps as f64, steps).into_iter();
        return levels.map(|sigma| f64::from(sigma as f32)).collect();
    }
    let train = config.num_train_timesteps as f32;
    // The fixed shift also applies to the lowest level. A size-dependent shift replaces the fixed one.
    let lowest_sigma = if config.use_dynamic_shifting {
        1.0 / train
    } else {
        shifted(1.0 / train, config.shift as f32)
    };
    let (highest, lowest) = (f64::from(train), f64::from(lowest_sigma * train));
    let share = |step: usize| {
        if steps > 1 {
            step as f64 / (steps - 1) as f64
        } else {
            0.0
        }
    };
    (0..steps)
        .map(|step| (highest + share(step) * (lowest - highest)) / highest)
        .collect()
}

fn shifted(sigma: f32, shift: f32) -> f32 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// Scales the distances of falling noise levels from 1 so that the last level is `terminal`:
/// `stretch_shift_to_terminal` in diffusers.
pub(crate) fn stretch_to_terminal(sigmas: &mut [f64], terminal: f64) {
    let Some(&last) = sigmas.last() else { return };
    let scale = (1.0 - last) / (1.0 - terminal);
    if scale > 0.0 {
        sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}
