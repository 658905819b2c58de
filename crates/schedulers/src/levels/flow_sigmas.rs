//! Noise levels of rectified flow for samplers that support diffusion models too: `use_flow_sigmas` in
//! diffusers.
//!
//! As in diffusers, UniPC spaces the levels from pure noise, the other classes from the original sample.

use crate::error::Refusal;
use crate::levels::flow_match_euler::stretch_to_terminal;
use crate::levels::setup::Setup;
use crate::levels::sigmas;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// Noise levels from 0 (original sample) to 1 (noise), and the timesteps that the network gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FlowSigmas {
    /// One more than there are steps.
    pub(crate) sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f32>,
}

impl FlowSigmas {
    /// The levels that `setup` describes.
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let uni_pc = setup.kind == SamplerKind::UniPc;
        let train = config.train_timesteps() as f64;
        let terminal = config.shift_terminal.filter(|&terminal| terminal != 0.0);
        let levels = match setup.schedule {
            ScheduleKind::Normal => {
                let shift = shift(setup)?;
                let shifted = |sigma: f64| shift * sigma / (1.0 + (shift - 1.0) * sigma);
                let mut levels: Vec<f64> = unshifted(setup, train).into_iter().map(shifted).collect();
                if let Some(terminal) = terminal {
                    if !uni_pc || !(0.0..1.0).contains(&terminal) {
                        return Err(Refusal::setting("shift_terminal", terminal));
                    }
                    stretch_to_terminal(&mut levels, terminal);
                }
                levels
            }
            // The other classes compute levels outside of 0 to 1 from such schedules.
            ScheduleKind::Karras if uni_pc => {
                let table = setup.training.sigmas();
                let range = (f64::from(table[0]), f64::from(table[table.len() - 1]));
                let schedule = setup.noise_schedule(setup.timesteps(setup.training.len()), Some(range));
                schedule
                    .sigmas
                    .iter()
                    .map(|sigma| sigma / (sigma + 1.0))
                    .collect()
            }
            schedule => {
                return Err(Refusal::FlowSchedule {
                    kind: setup.kind,
                    schedule,
                });
            }
        };
        const NEARLY: f64 = 1e-6;
        let mut levels = levels;
        if let Some(first) = levels.first_mut()
            && uni_pc
            && (*first - 1.0).abs() < NEARLY
        {
            // At pure noise the log SNR is infinite.
            *first -= NEARLY;
        }
        if levels
            .iter()
            .any(|&level| !(level as f32 > 0.0 && (level as f32) < 1.0))
        {
            return Err(Refusal::setting("flow_shift", shift(setup)?));
        }
        let timesteps = levels
            .iter()
            .map(|level| (level * train).trunc() as f32)
            .collect();
        let mut sigmas: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
        let last = sigmas.last().copied().unwrap_or_default();
        sigmas.push(match setup.kind {
            SamplerKind::Deis => last,
            _ if !setup.ends_at_sigma_min()? => 0.0,
            SamplerKind::UniPc => last,
            // diffusers takes it from the training schedule, which rectified flow does not use otherwise.
            _ => setup.training.sigmas()[0],
        });
        Ok(Self { sigmas, timesteps })
    }
}

/// The noise levels of the steps before the timestep shift.
fn unshifted(setup: &Setup<'_>, train: f64) -> Vec<f64> {
    let spread = sigmas::linspace(1.0, 1.0 / train, setup.steps + 1);
    if setup.kind == SamplerKind::UniPc {
        spread[..setup.steps].to_vec()
    } else {
        spread[1..].iter().rev().map(|sigma| 1.0 - sigma).collect()
    }
}

/// The timestep shift; 1 changes nothing.
fn shift(setup: &Setup<'_>) -> Result<f64, Refusal> {
    let config = setup.config;
    if config.use_dynamic_shifting != Some(true) {
        return Ok(config.configured_shift());
    }
    let flow = config.flow()?;
    if flow.time_shift_type != "exponential" && setup.kind != SamplerKind::UniPc {
        return Err(Refusal::setting("time_shift_type", flow.time_shift_type));
    }
    Ok(flow.dynamic_shift(setup.patches))
}
