//! Noise levels of the samplers that count in the logarithm of the signal-to-noise ratio: DPM-Solver and DPM-Solver++,
//! UniPC and DEIS.

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::edm::Edm;
use crate::error::Refusal;
use crate::flow_sigmas::FlowSigmas;
use crate::kind::SamplerKind;
use crate::level::{NoiseLevel, Prediction};
use crate::schedule_kind::ScheduleKind;
use crate::setup::Setup;

/// The noise levels of a run, and how predictions are read.
#[derive(Debug)]
pub(crate) struct Preserving {
    /// One more than there are steps.
    sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f32>,
    pub(crate) initial_noise_scale: f32,
    prediction: Prediction,
    form: Form,
}

/// What a noise level means for latents.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The squares of the shares of picture and noise add up to 1.
    Squares,
    /// The shares themselves do.
    Line,
    /// The picture keeps its share; with the standard deviation of the data.
    Added(f32),
}

/// A noise level, as the equations of these samplers take it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) signal: f32,
    pub(crate) noise: f32,
    /// Half the logarithm of the signal-to-noise ratio; infinite at the picture itself.
    pub(crate) time: f32,
}

/// How many predictions a step builds on.
pub(crate) fn order(config: &SchedulerConfig) -> Result<usize, Refusal> {
    match config.solver_order.unwrap_or(2) {
        order @ 1..=3 => Ok(order),
        other => Err(Refusal::Setting {
            name: "solver_order",
            value: other.to_string(),
        }),
    }
}

impl Preserving {
    /// The levels that `setup` describes.
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Refusal> {
        if setup.is_flow() {
            let flow = FlowSigmas::new(setup)?;
            return Ok(Self {
                sigmas: flow.sigmas,
                timesteps: flow.timesteps,
                initial_noise_scale: 1.0,
                prediction: setup.prediction,
                form: Form::Line,
            });
        }
        let config = setup.config;
        let table = setup.table.sigmas();
        let ends_at_last = matches!(setup.kind, SamplerKind::UniPc | SamplerKind::Deis);
        let (least, most) = (table[0], table[table.len() - 1]);

        // Timesteps with more noise than this are left out.
        let clipped = config.lambda_min_clipped.unwrap_or(f32::NEG_INFINITY);
        let too_noisy = |sigma: &&f32| -sigma.ln() < clipped;
        let cut = if ends_at_last {
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
        let mut sigmas: Vec<f32> = spread.sigmas.iter().map(|&sigma| sigma as f32).collect();
        let bent = setup.schedule != ScheduleKind::Normal && setup.schedule != ScheduleKind::SgmUniform;
        // DEIS's class has no picture at its end.
        let at_least_noise = setup.kind == SamplerKind::Deis || setup.ends_at_least_noise()?;
        sigmas.push(match (at_least_noise, ends_at_last && bent) {
            (false, _) => 0.0,
            (true, false) => least,
            (true, true) => sigmas[sigmas.len() - 1],
        });
        Ok(Self {
            sigmas,
            timesteps: spread
                .timesteps
                .iter()
                .map(|&timestep| told(setup, timestep))
                .collect(),
            initial_noise_scale: 1.0,
            prediction: setup.prediction,
            form: Form::Squares,
        })
    }

    /// The levels of a model that is preconditioned as EDM does.
    pub(crate) fn of_edm(edm: Edm) -> Self {
        Self {
            sigmas: edm.sigmas,
            timesteps: edm.timesteps,
            initial_noise_scale: edm.initial_noise_scale,
            prediction: edm.prediction,
            form: Form::Added(edm.data),
        }
    }

    /// How many steps there are.
    pub(crate) fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The noise at an evaluation, or after the last one.
    pub(crate) fn level(&self, evaluation: usize) -> NoiseLevel {
        let sigma = self.sigmas[evaluation];
        match self.form {
            Form::Squares => NoiseLevel::of_sigma(sigma),
            Form::Line => NoiseLevel::Flow { sigma },
            Form::Added(data) => NoiseLevel::Edm { sigma, data },
        }
    }

    /// The noise at an evaluation, or after the last one.
    pub(crate) fn moment(&self, evaluation: usize) -> Moment {
        let (signal, noise) = self.level(evaluation).shares();
        let time = signal.ln() - noise.ln();
        Moment { signal, noise, time }
    }

    /// The picture that `output` points to.
    pub(crate) fn original(
        &self,
        evaluation: usize,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        self.level(evaluation).original(self.prediction, latents, output)
    }

    /// The noise that `output` says is in `latents`.
    pub(crate) fn noise(
        &self,
        evaluation: usize,
        latents: &Tensor,
        output: &Tensor,
    ) -> candle_core::Result<Tensor> {
        self.level(evaluation).noise(self.prediction, latents, output)
    }
}

/// What the network is told of a timestep: a whole number, which diffusers' classes round each in their own way.
fn told(setup: &Setup<'_>, timestep: f64) -> f32 {
    let cosine = setup.config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
    let multistep = setup.kind.is_multistep();
    let rounded = match setup.schedule {
        ScheduleKind::Karras => !(multistep && cosine),
        // The even steps of Lu et al. in the logarithm.
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
