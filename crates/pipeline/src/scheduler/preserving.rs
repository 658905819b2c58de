//! Noise levels of the samplers that count in the logarithm of the signal-to-noise ratio: DPM++ 2M, its
//! stochastic sister and UniPC.

use candle_core::Tensor;

use super::config::SchedulerConfig;
use super::error::Refusal;
use super::kind::SamplerKind;
use super::level::{NoiseLevel, Prediction};
use super::schedule_kind::ScheduleKind;
use super::setup::Setup;

/// The noise levels of a run, and how predictions are read.
#[derive(Debug)]
pub(super) struct Preserving {
    /// One more than there are steps.
    sigmas: Vec<f32>,
    pub(super) timesteps: Vec<f32>,
    prediction: Prediction,
}

/// A noise level, as the equations of these samplers take it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) signal: f32,
    pub(super) noise: f32,
    /// Half the logarithm of the signal-to-noise ratio; infinite at the picture itself.
    pub(super) time: f32,
}

/// How many predictions a step builds on.
pub(super) fn order(config: &SchedulerConfig) -> Result<usize, Refusal> {
    match config.solver_order.unwrap_or(2) {
        order @ 1..=3 => Ok(order),
        other => Err(Refusal::Setting {
            name: "solver_order",
            value: other.to_string(),
        }),
    }
}

impl Preserving {
    pub(super) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        let config = setup.config;
        let table = setup.table.sigmas();
        let uni_pc = setup.kind == SamplerKind::UniPc;
        let (least, most) = (table[0], table[table.len() - 1]);

        // Timesteps with more noise than this are left out.
        let clipped = config.lambda_min_clipped.unwrap_or(f32::NEG_INFINITY);
        let too_noisy = |sigma: &&f32| -sigma.ln() < clipped;
        let cut = if uni_pc {
            0
        } else {
            table.iter().filter(too_noisy).count()
        };
        let kept = table.len() - cut;
        let spread = setup.spread(setup.timesteps(kept), Some((f64::from(least), f64::from(most))));
        let proper = spread
            .sigmas
            .iter()
            .all(|&sigma| sigma.is_finite() && sigma > 0.0);
        if setup.steps >= kept || !proper {
            return Err(Refusal::Setting {
                name: "lambda_min_clipped, sigma_min and sigma_max",
                value: format!("{:?}", (clipped, config.sigma_min, config.sigma_max)),
            });
        }
        let cosine = config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
        let rounded = setup.schedule == ScheduleKind::Karras && (uni_pc || !cosine);
        let told = |&timestep: &f64| {
            let whole = if rounded {
                timestep.round_ties_even()
            } else {
                timestep.trunc()
            };
            whole as f32
        };
        let mut sigmas: Vec<f32> = spread.sigmas.iter().map(|&sigma| sigma as f32).collect();
        let bent = setup.schedule != ScheduleKind::Normal && setup.schedule != ScheduleKind::SgmUniform;
        sigmas.push(match (setup.ends_at_least_noise()?, uni_pc && bent) {
            (false, _) => 0.0,
            (true, false) => least,
            (true, true) => sigmas[sigmas.len() - 1],
        });
        Ok(Self {
            sigmas,
            timesteps: spread.timesteps.iter().map(told).collect(),
            prediction: setup.prediction,
        })
    }

    /// How many steps there are.
    pub(super) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The noise at an evaluation.
    pub(super) fn level(&self, evaluation: usize) -> NoiseLevel {
        NoiseLevel::of_sigma(self.sigmas[evaluation])
    }

    /// The noise at an evaluation, or after the last one.
    pub(super) fn moment(&self, evaluation: usize) -> Moment {
        let sigma = self.sigmas[evaluation];
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let noise = sigma * signal;
        let time = signal.ln() - noise.ln();
        Moment { signal, noise, time }
    }

    /// The picture that `output` points to.
    pub(super) fn original(
        &self,
        evaluation: usize,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        self.level(evaluation).original(self.prediction, latents, output)
    }
}
