//! A sampler with its schedule: immutable, with all that a picture remembers in its [`Trajectory`].

use std::sync::Arc;

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::ddim::Ddim;
use crate::ddpm::Ddpm;
use crate::deis::Deis;
use crate::dpm_sde::DpmSde;
use crate::dpm2::Dpm2;
use crate::dpm3m_sde::Dpm3MSde;
use crate::edm::Edm;
use crate::error::{Refusal, StepError};
use crate::euler::Euler;
use crate::flow::Flow;
use crate::heun::Heun;
use crate::kind::SamplerKind;
use crate::lcm::Lcm;
use crate::lms::Lms;
use crate::method::{Method, NoiseSource, Step};
use crate::multistep::Multistep;
use crate::pndm::Pndm;
use crate::pndm_runge_kutta::{BEGINNING_EVALUATIONS, PndmRungeKutta};
use crate::process::NoiseProcess;
use crate::schedule_kind::ScheduleKind;
use crate::settings;
use crate::setup::Setup;
use crate::singlestep::Singlestep;
use crate::tcd::Tcd;
use crate::trajectory::Trajectory;
use crate::unipc::UniPc;

/// The way of a picture from noise to latents, evaluation by evaluation of the network.
///
/// Several pictures may be led by one sampler, each with its own trajectory. Evaluations are counted from 0,
/// from the first one that is made; methods that are given one panic where it is not below
/// [`Sampler::evaluations`].
#[derive(Debug, Clone)]
pub struct Sampler {
    kind: SamplerKind,
    schedule: ScheduleKind,
    steps: usize,
    /// Evaluations of the schedule that are passed over.
    passed_over: usize,
    timesteps: Vec<f32>,
    method: Arc<dyn Method>,
}

impl Sampler {
    /// The sampler `kind` for a model with the scheduler `config`, over `steps` of which the first `skipped`
    /// are passed over ([`SchedulerConfig::skipped_steps`]), for pictures of `patches` patches (which matters
    /// only where the configuration shifts noise levels by size). For models of rectified flow and for those that are
    /// preconditioned as EDM does, `Euler` and others mean the methods made for them.
    ///
    /// # Errors
    /// The model, the sampler, the schedule and the steps do not go together, or the configuration has a setting that is not
    /// obeyed.
    pub fn new(
        config: &SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
        skipped: usize,
        patches: usize,
    ) -> Result<Self, Refusal> {
        let process = config.process();
        let kind = kind.for_process(process);
        if !kind.leads(process) {
            let made_for = if kind.is_flow() {
                NoiseProcess::Flow
            } else if kind.is_edm() {
                NoiseProcess::Edm
            } else {
                NoiseProcess::Diffusion
            };
            return Err(other_models(kind, made_for));
        }
        settings::check(config, kind)?;
        let (method, schedule): (Arc<dyn Method>, _) = if kind.is_flow() {
            let schedule = match schedule {
                ScheduleKind::Automatic => config.own_schedule(kind),
                other => other,
            };
            (
                Arc::new(Flow::new(config, kind, schedule, steps, patches)?),
                schedule,
            )
        } else if kind.is_edm() {
            let edm = Edm::new(config, kind, schedule, steps)?;
            let schedule = edm.schedule;
            if kind == SamplerKind::EdmEuler {
                (Arc::new(Euler::of_edm(edm)), schedule)
            } else {
                (Arc::new(Multistep::of_edm(edm, config, kind)?), schedule)
            }
        } else {
            let setup = Setup::new(config, kind, schedule, steps, patches)?;
            (diffusion(&setup)?, setup.schedule)
        };
        let mut timesteps = method.timesteps();
        let passed_over = skipped.saturating_mul(kind.order());
        // An evaluation more than the steps is no step of its own.
        if skipped >= steps || passed_over >= timesteps.len() {
            return Err(Refusal::NothingLeft { steps, skipped });
        }
        timesteps.drain(..passed_over);
        Ok(Self {
            kind,
            schedule,
            steps: steps - skipped,
            passed_over,
            timesteps,
            method,
        })
    }

    /// The same, ended after `evaluations`, so that another network can go on from there.
    #[must_use]
    pub fn until(mut self, evaluations: usize) -> Self {
        self.steps = self.steps_done(evaluations);
        self.timesteps.truncate(evaluations);
        self
    }

    /// How many evaluations come before the noise is less than `share` of the way from all to none, by timesteps: where one
    /// network hands over to another.
    pub fn evaluations_before(&self, share: f64, train_timesteps: usize) -> usize {
        let train = train_timesteps as f64;
        let cutoff = (train - share * train).round_ties_even();
        let before = self
            .timesteps
            .iter()
            .take_while(|&&timestep| f64::from(timestep) >= cutoff);
        before.count()
    }

    /// The sampler.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// Its schedule, never automatic.
    pub fn schedule(&self) -> ScheduleKind {
        self.schedule
    }

    /// Steps that are taken, as the user counts them.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How many times the network is asked.
    pub fn evaluations(&self) -> usize {
        self.timesteps.len()
    }

    /// How many steps are finished after `evaluations`.
    pub fn steps_done(&self, evaluations: usize) -> usize {
        if evaluations >= self.evaluations() {
            self.steps
        } else {
            match self.kind {
                SamplerKind::Pndm => evaluations.saturating_sub(1),
                SamplerKind::PndmRungeKutta => runge_kutta_steps(evaluations).min(self.steps - 1),
                kind => evaluations / kind.order(),
            }
        }
    }

    /// What the network is told of the noise, one number an evaluation.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// What standard normal noise is multiplied with to become the first latents of a picture that begins as
    /// noise.
    pub fn initial_noise_scale(&self) -> f32 {
        self.method.initial_noise_scale()
    }

    /// The latents of a picture that begins as `latents` with noise added.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn add_noise(&self, latents: &Tensor, noise: &Tensor) -> candle_core::Result<Tensor> {
        self.add_noise_at(0, latents, noise)
    }

    /// `latents` with as much noise as the trajectory has before `evaluation`; after the last one, `latents`
    /// themselves.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn add_noise_at(
        &self,
        evaluation: usize,
        latents: &Tensor,
        noise: &Tensor,
    ) -> candle_core::Result<Tensor> {
        if evaluation == self.evaluations() {
            return Ok(latents.clone());
        }
        let level = self.method.blend_level(self.passed_over + evaluation);
        level.add_noise(latents, noise)
    }

    /// `latents` as the network takes them.
    ///
    /// # Errors
    /// The device fails.
    pub fn scale_input(&self, evaluation: usize, latents: &Tensor) -> candle_core::Result<Tensor> {
        self.method
            .level(self.passed_over + evaluation)
            .scale_input(latents)
    }

    /// How many times the step of `evaluation` draws noise of the latents' shape.
    pub fn noises(&self, evaluation: usize) -> usize {
        self.method.noises(self.passed_over + evaluation)
    }

    /// The picture's latents that `prediction`, the network's for `trajectory` before the step of
    /// `evaluation`, points to.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn predicted_original(
        &self,
        evaluation: usize,
        prediction: &Tensor,
        trajectory: &Trajectory,
    ) -> candle_core::Result<Tensor> {
        let evaluation = self.passed_over + evaluation;
        self.method.original(evaluation, &trajectory.latents, prediction)
    }

    /// Leads `trajectory` past `evaluation` with `prediction`, the network's for [`Sampler::scale_input`] of
    /// its latents. It draws from `noise` [`Sampler::noises`] times.
    ///
    /// # Errors
    /// The trajectory is not one that this sampler led so far, the shapes differ, or the device fails; the
    /// trajectory is then as it was.
    pub fn step(
        &self,
        evaluation: usize,
        prediction: &Tensor,
        trajectory: &mut Trajectory,
        noise: &mut NoiseSource<'_>,
    ) -> Result<(), StepError> {
        assert!(
            evaluation < self.evaluations(),
            "evaluation {evaluation} of {}",
            self.evaluations()
        );
        self.method.step(Step {
            kind: self.kind,
            evaluation: self.passed_over + evaluation,
            done: evaluation,
            output: prediction,
            trajectory,
            noise,
        })
    }
}

/// How many steps are finished after `evaluations`, of which the first are those of Runge-Kutta.
fn runge_kutta_steps(evaluations: usize) -> usize {
    let after = evaluations.saturating_sub(BEGINNING_EVALUATIONS);
    const STAGES: usize = 4;
    (evaluations - after) / STAGES + after
}

fn diffusion(setup: &Setup<'_>) -> Result<Arc<dyn Method>, Refusal> {
    use SamplerKind as Kind;
    Ok(match setup.kind {
        Kind::Euler => Arc::new(Euler::new(setup)?),
        Kind::EulerAncestral => Arc::new(Euler::ancestral(setup)?),
        Kind::Heun => Arc::new(Heun::new(setup)?),
        Kind::Dpm2 | Kind::Dpm2Ancestral | Kind::DpmPlusPlus2SAncestral => Arc::new(Dpm2::new(setup)?),
        Kind::Ddim => Arc::new(Ddim::new(setup)?),
        Kind::Ddpm => Arc::new(Ddpm::new(setup)?),
        Kind::Pndm => Arc::new(Pndm::new(setup)?),
        Kind::PndmRungeKutta => Arc::new(PndmRungeKutta::new(setup)?),
        Kind::Lms => Arc::new(Lms::new(setup)?),
        Kind::Deis => Arc::new(Deis::new(setup)?),
        Kind::Dpm2M | Kind::Dpm2MSde | Kind::DpmPlusPlus2M | Kind::DpmPlusPlus2MSde => {
            Arc::new(Multistep::new(setup)?)
        }
        Kind::Dpm2S | Kind::DpmPlusPlus2S | Kind::DpmPlusPlus2SSde => Arc::new(Singlestep::new(setup)?),
        Kind::DpmPlusPlus3MSde => Arc::new(Dpm3MSde::new(setup)?),
        Kind::DpmPlusPlusSde => Arc::new(DpmSde::new(setup)?),
        Kind::UniPc => Arc::new(UniPc::new(setup)?),
        Kind::Lcm => Arc::new(Lcm::new(setup)?),
        Kind::Tcd => Arc::new(Tcd::new(setup)?),
        kind @ (Kind::FlowEuler | Kind::FlowHeun | Kind::FlowLcm) => {
            return Err(other_models(kind, NoiseProcess::Flow));
        }
        kind @ (Kind::EdmEuler | Kind::EdmDpmPlusPlus2M | Kind::EdmDpmPlusPlus2MSde) => {
            return Err(other_models(kind, NoiseProcess::Edm));
        }
    })
}

fn other_models(kind: SamplerKind, process: NoiseProcess) -> Refusal {
    Refusal::OtherModels {
        kind,
        made_for: process.models(),
    }
}
