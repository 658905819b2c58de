//! Variance-preserving noise levels and their log SNR: for DPM-Solver, DPM-Solver++, UniPC and DEIS.

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::levels::NoiseLevels;
use crate::levels::edm::Edm;
use crate::levels::flow_sigmas::FlowSigmas;
use crate::levels::noise_level::NoiseLevel;
use crate::levels::prediction_type::PredictionType;
use crate::levels::setup::Setup;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// The noise levels of a run. Solvers compute with [`LogSnr`], which all parameterizations have.
#[derive(Debug)]
pub(crate) struct VariancePreserving {
    /// One per step, and one after the last step.
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    initial_noise_scale: f32,
    prediction_type: PredictionType,
    parameterization: Parameterization,
}

/// How latents at a level are composed of sample and noise.
#[derive(Debug, Clone, Copy)]
enum Parameterization {
    /// The squares of the factors add up to 1.
    VariancePreserving,
    /// The factors add up to 1.
    RectifiedFlow,
    /// The factor of the sample is 1; with the standard deviation of the training data.
    Edm(f32),
}

/// A noise level in the terms of Lu et al., "DPM-Solver", 2022: `alpha_t`, `sigma_t` and `lambda_t`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogSnr {
    /// The factor of the sample.
    pub(crate) alpha: f32,
    /// The factor of the noise.
    pub(crate) sigma: f32,
    /// Half the logarithm of the signal-to-noise ratio; infinite without noise.
    pub(crate) lambda: f32,
}

/// `solver_order`: the number of predictions that a step uses.
pub(crate) fn solver_order(config: &SchedulerConfig) -> Result<usize, Refusal> {
    match config.solver_order.unwrap_or(2) {
        order @ 1..=3 => Ok(order),
        other => Err(Refusal::setting("solver_order", other)),
    }
}

impl VariancePreserving {
    /// The levels that `setup` describes.
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        if setup.is_flow() {
            let flow = FlowSigmas::new(setup)?;
            return Ok(Self {
                sigmas: flow.sigmas,
                timesteps: flow.timesteps,
                initial_noise_scale: 1.0,
                prediction_type: setup.prediction_type,
                parameterization: Parameterization::RectifiedFlow,
            });
        }
        let config = setup.config;
        let table = setup.training.sigmas();
        let spans_all_timesteps = matches!(setup.kind, SamplerKind::UniPc | SamplerKind::Deis);
        let (lowest, highest) = (table[0], table[table.len() - 1]);

        // `lambda_min_clipped` leaves out the timesteps with more noise.
        let clipped = config.lambda_min_clipped.unwrap_or(f32::NEG_INFINITY);
        let too_noisy = |sigma: &&f32| -sigma.ln() < clipped;
        let dropped = if spans_all_timesteps {
            0
        } else {
            table.iter().filter(too_noisy).count()
        };
        let kept = table.len() - dropped;
        let schedule = setup.noise_schedule(
            setup.timesteps(kept),
            Some((f64::from(lowest), f64::from(highest))),
        );
        let valid = schedule
            .sigmas
            .iter()
            .all(|&sigma| sigma.is_finite() && sigma > 0.0);
        if setup.steps >= kept || !valid {
            return Err(Refusal::setting(
                "lambda_min_clipped, sigma_min and sigma_max",
                format!("{:?}", (clipped, config.sigma_min, config.sigma_max)),
            ));
        }
        let mut sigmas: Vec<f32> = schedule.sigmas.iter().map(|&sigma| sigma as f32).collect();
        let has_curve = setup.schedule != ScheduleKind::Normal && setup.schedule != ScheduleKind::SgmUniform;
        // DEIS's class never ends at the original sample.
        let ends_at_sigma_min = setup.kind == SamplerKind::Deis || setup.ends_at_sigma_min()?;
        sigmas.push(match (ends_at_sigma_min, spans_all_timesteps && has_curve) {
            (false, _) => 0.0,
            (true, false) => lowest,
            (true, true) => sigmas[sigmas.len() - 1],
        });
        Ok(Self {
            sigmas,
            timesteps: schedule
                .timesteps
                .iter()
                .map(|&timestep| rounded_timestep(setup, timestep))
                .collect(),
            initial_noise_scale: 1.0,
            prediction_type: setup.prediction_type,
            parameterization: Parameterization::VariancePreserving,
        })
    }

    /// The levels of an EDM-preconditioned model.
    pub(crate) fn from_edm(edm: Edm) -> Self {
        Self {
            sigmas: edm.sigmas,
            timesteps: edm.timesteps,
            initial_noise_scale: edm.initial_noise_scale,
            prediction_type: edm.prediction_type,
            parameterization: Parameterization::Edm(edm.sigma_data),
        }
    }

    /// The number of steps.
    pub(crate) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The level of an evaluation, or after the last one, as solvers take it.
    pub(crate) fn log_snr(&self, evaluation: usize) -> LogSnr {
        let (alpha, sigma) = self.level(evaluation).factors();
        let lambda = alpha.ln() - sigma.ln();
        LogSnr { alpha, sigma, lambda }
    }
}

impl NoiseLevels for VariancePreserving {
    fn timesteps(&self) -> Vec<f32> {
        self.timesteps.clone()
    }

    fn level(&self, evaluation: usize) -> NoiseLevel {
        let sigma = self.sigmas[evaluation];
        match self.parameterization {
            Parameterization::VariancePreserving => NoiseLevel::from_sigma(sigma),
            Parameterization::RectifiedFlow => NoiseLevel::Flow { sigma },
            Parameterization::Edm(sigma_data) => NoiseLevel::Edm { sigma, sigma_data },
        }
    }

    fn initial_noise_scale(&self) -> f32 {
        self.initial_noise_scale
    }

    fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }
}

/// The timestep that the network gets: a whole number, rounded differently by the classes of diffusers.
fn rounded_timestep(setup: &Setup<'_>, timestep: f64) -> f32 {
    let cosine = setup.config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
    let multistep = setup.kind.is_multistep();
    let rounded = match setup.schedule {
        ScheduleKind::Karras => !(multistep && cosine),
        // `use_lu_lambdas`: evenly spaced in the log SNR.
        ScheduleKind::Exponential => multistep && !cosine && setup.config.use_lu_lambdas == Some(true),
        _ => false,
    };
    let whole = if rounded {
        timestep.round_ties_even()
    } else {
        timestep.trunc()
    };
    whole as f32
}
