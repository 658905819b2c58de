//! Noise levels of rectified flow for the samplers that are made for diffusion models as well.
//!
//! As diffusers' schedulers spread them with `use_flow_sigmas`: UniPC from pure noise on, the others from the picture on.

use crate::error::Refusal;
use crate::flow_match_euler::{size_shift, stretch};
use crate::kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;
use crate::setup::Setup;
use crate::sigmas;

/// Places on the line from the picture (0) to noise (1), and the timesteps that the network is told of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FlowSigmas {
    /// One more than there are steps.
    pub(crate) sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f32>,
}

impl FlowSigmas {
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let uni_pc = setup.kind == SamplerKind::UniPc;
        let train = config.train_timesteps() as f64;
        let refused = |name, value: &dyn std::fmt::Display| Refusal::Setting {
            name,
            value: value.to_string(),
        };
        let terminal = config.shift_terminal.filter(|&terminal| terminal != 0.0);
        let levels = match setup.schedule {
            ScheduleKind::Normal => {
                let shift = shift(setup)?;
                let shifted = |place: f64| shift * place / (1.0 + (shift - 1.0) * place);
                let mut levels: Vec<f64> = places(setup, train).into_iter().map(shifted).collect();
                if let Some(terminal) = terminal {
                    if !uni_pc || !(0.0..1.0).contains(&terminal) {
                        return Err(refused("shift_terminal", &terminal));
                    }
                    stretch(&mut levels, terminal);
                }
                levels
            }
            // Where the others are given curves, they make numbers of them that are no places on the line.
            ScheduleKind::Karras if uni_pc => {
                let table = setup.table.sigmas();
                let range = (f64::from(table[0]), f64::from(table[table.len() - 1]));
                let spread = setup.spread(setup.timesteps(setup.table.len()), Some(range));
                spread.sigmas.iter().map(|sigma| sigma / (sigma + 1.0)).collect()
            }
            schedule => {
                return Err(Refusal::Schedule {
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
            // At pure noise there is no logarithm of the signal.
            *first -= NEARLY;
        }
        if levels
            .iter()
            .any(|&level| !(level as f32 > 0.0 && (level as f32) < 1.0))
        {
            return Err(refused("flow_shift", &shift(setup)?));
        }
        let timesteps = levels
            .iter()
            .map(|level| (level * train).trunc() as f32)
            .collect();
        let mut sigmas: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
        let last = sigmas.last().copied().unwrap_or_default();
        sigmas.push(match setup.kind {
            SamplerKind::Deis => last,
            _ if !setup.ends_at_least_noise()? => 0.0,
            SamplerKind::UniPc => last,
            // Of the noise table that such a model does not have otherwise: diffusers takes it all the same.
            _ => setup.table.sigmas()[0],
        });
        Ok(Self { sigmas, timesteps })
    }
}

/// Where the steps begin, before they are shifted.
fn places(setup: &Setup<'_>, train: f64) -> Vec<f64> {
    let spread = sigmas::evenly(1.0, 1.0 / train, setup.steps + 1);
    if setup.kind == SamplerKind::UniPc {
        spread[..setup.steps].to_vec()
    } else {
        spread[1..].iter().rev().map(|place| 1.0 - place).collect()
    }
}

/// How far they are shifted towards noise: 1 moves nothing.
fn shift(setup: &Setup<'_>) -> Result<f64, Refusal> {
    let config = setup.config;
    if config.use_dynamic_shifting != Some(true) {
        return Ok(config.own_shift());
    }
    let flow = config.flow()?;
    if flow.time_shift_type != "exponential" && setup.kind != SamplerKind::UniPc {
        return Err(Refusal::Setting {
            name: "time_shift_type",
            value: flow.time_shift_type,
        });
    }
    Ok(size_shift(&flow, setup.patches))
}
