//! The sampler of a run: a solver with its noise levels. It is immutable; what changes is in each image's
//! [`SamplerState`].

use std::sync::Arc;

use candle_core::Tensor;

use crate::config::SchedulerConfig;
use crate::error::{Refusal, StepError};
use crate::levels::edm::Edm;
use crate::levels::setup::Setup;
use crate::noise_process::NoiseProcess;
use crate::sampler_kind::SamplerKind;
use crate::sampler_state::SamplerState;
use crate::schedule_kind::ScheduleKind;
use crate::solvers::ddim::Ddim;
use crate::solvers::ddpm::Ddpm;
use crate::solvers::deis::Deis;
use crate::solvers::dpm_multistep::DpmMultistep;
use crate::solvers::dpm_sde::DpmSde;
use crate::solvers::dpm_singlestep::DpmSinglestep;
use crate::solvers::dpm2::Dpm2;
use crate::solvers::dpm3m_sde::Dpm3MSde;
use crate::solvers::euler::Euler;
use crate::solvers::flow_match::FlowMatch;
use crate::solvers::heun::Heun;
use crate::solvers::lcm::Lcm;
use crate::solvers::lms::Lms;
use crate::solvers::pndm::Pndm;
use crate::solvers::pndm_runge_kutta::{self, PndmRungeKutta};
use crate::solvers::tcd::Tcd;
use crate::solvers::unipc::UniPc;
use crate::solvers::{NoiseSource, Solver, Step};

/// Advances images from noise to latents, by one evaluation of the network at a time.
///
/// One sampler serves several images, each with its own [`SamplerState`]. Evaluations are counted from 0,
/// without those that image-to-image skips. Methods with an evaluation as argument panic if it is not below
/// [`Sampler::evaluations`].
#[doc(alias = "scheduler")]
#[derive(Debug, Clone)]
pub struct Sampler {
    kind: SamplerKind,
    schedule: ScheduleKind,
    steps: usize,
    /// Evaluations of the schedule that image-to-image skips.
    skipped_evaluations: usize,
    timesteps: Vec<f32>,
    solver: Arc<dyn Solver>,
}

impl Sampler {
    /// The sampler `kind` for a model with the scheduler `config`, with `steps` steps, of which
    /// image-to-image skips the first `skipped` ([`SchedulerConfig::skipped_steps`]). `patches` is the number
    /// of patches of the image, on which the noise levels depend with `use_dynamic_shifting`. For models of
    /// rectified flow and EDM-preconditioned models, `Euler` and other names mean the samplers for them.
    ///
    /// # Errors
    /// The sampler does not support the model, the schedule or the number of steps, or the configuration has
    /// a setting that is not supported.
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
        if !kind.supports(process) {
            let made_for = if kind.is_flow() {
                NoiseProcess::Flow
            } else if kind.is_edm() {
                NoiseProcess::Edm
            } else {
                NoiseProcess::Diffusion
            };
            return Err(other_models(kind, made_for));
        }
        config.check_settings(kind)?;
        let (solver, schedule): (Arc<dyn Solver>, _) = if kind.is_flow() {
            let schedule = match schedule {
                ScheduleKind::Automatic => config.configured_schedule(kind),
                other => other,
            };
            (
                Arc::new(FlowMatch::new(config, kind, schedule, steps, patches)?),
                schedule,
            )
        } else if kind.is_edm() {
            let edm = Edm::new(config, kind, schedule, steps)?;
            let schedule = edm.schedule;
            if kind == SamplerKind::EdmEuler {
                (Arc::new(Euler::from_edm(edm)), schedule)
            } else {
                (Arc::new(DpmMultistep::from_edm(edm, config, kind)?), schedule)
            }
        } else {
            let setup = Setup::new(config, kind, schedule, steps, patches)?;
            (diffusion_solver(&setup)?, setup.schedule)
        };
        let mut timesteps = solver.timesteps();
        let skipped_evaluations = skipped.saturating_mul(kind.order());
        // PNDM has more evaluations than steps.
        if skipped >= steps || skipped_evaluations >= timesteps.len() {
            return Err(Refusal::NothingLeft { steps, skipped });
        }
        timesteps.drain(..skipped_evaluations);
        Ok(Self {
            kind,
            schedule,
            steps: steps - skipped,
            skipped_evaluations,
            timesteps,
            solver,
        })
    }

    /// The same sampler, ended after `evaluations`, so that another model can continue from there (base and
    /// refiner). A step that this splits in the middle, as diffusers' pipelines do for samplers of second order,
    /// counts as a step.
    #[must_use]
    pub fn until(mut self, evaluations: usize) -> Self {
        let evaluations = evaluations.min(self.evaluations());
        self.steps = evaluations
            .checked_sub(1)
            .map_or(0, |last| self.steps_done(last) + 1);
        self.timesteps.truncate(evaluations);
        self
    }

    /// The number of evaluations before the timestep at which the fraction `share` of the noise is removed:
    /// `denoising_end` of the base model, `denoising_start` of the refiner.
    #[doc(alias = "denoising_end")]
    #[doc(alias = "denoising_start")]
    pub fn evaluations_before(&self, share: f64, train_timesteps: usize) -> usize {
        let train = train_timesteps as f64;
        let cutoff = (train - share * train).round_ties_even();
        let before = self
            .timesteps
            .iter()
            .take_while(|&&timestep| f64::from(timestep) >= cutoff);
        before.count()
    }

    /// Which sampler it is.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// Its schedule; never automatic.
    pub fn schedule(&self) -> ScheduleKind {
        self.schedule
    }

    /// The number of steps, without those that image-to-image skips.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The number of evaluations of the network.
    pub fn evaluations(&self) -> usize {
        self.timesteps.len()
    }

    /// The number of finished steps after `evaluations`.
    pub fn steps_done(&self, evaluations: usize) -> usize {
        if evaluations >= self.evaluations() {
            self.steps
        } else {
            match self.kind {
                SamplerKind::Pndm => evaluations.saturating_sub(1),
                SamplerKind::PndmRungeKutta => pndm_runge_kutta::steps_done(evaluations).min(self.steps - 1),
                kind => evaluations / kind.order(),
            }
        }
    }

    /// The timestep that the network gets, for each evaluation.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The factor that makes initial latents of standard normal noise: `init_noise_sigma` in diffusers.
    #[doc(alias = "init_noise_sigma")]
    pub fn initial_noise_scale(&self) -> f32 {
        self.solver.levels().initial_noise_scale()
    }

    /// The initial latents of image-to-image: `latents` with `noise` of the first evaluation's level.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn add_noise(&self, latents: &Tensor, noise: &Tensor) -> candle_core::Result<Tensor> {
        self.add_noise_at(0, latents, noise)
    }

    /// `latents` with `noise` of the level before `evaluation`; after the last evaluation, `latents`
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
        let level = self.solver.blend_level(self.skipped_evaluations + evaluation);
        level.add_noise(latents, noise)
    }

    /// `latents` scaled as the network takes them: `scale_model_input` in diffusers.
    #[doc(alias = "scale_model_input")]
    ///
    /// # Errors
    /// The device fails.
    pub fn scale_input(&self, evaluation: usize, latents: &Tensor) -> candle_core::Result<Tensor> {
        self.solver
            .level(self.skipped_evaluations + evaluation)
            .scale_input(latents)
    }

    /// How many times the step of `evaluation` draws noise of the latents' shape.
    pub fn noise_draws(&self, evaluation: usize) -> usize {
        self.solver.noise_draws(self.skipped_evaluations + evaluation)
    }

    /// The original sample that `model_output`, the network's for the latents of `state` at `evaluation`,
    /// predicts.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    #[doc(alias = "pred_original_sample")]
    pub fn predicted_original_sample(
        &self,
        evaluation: usize,
        model_output: &Tensor,
        state: &SamplerState,
    ) -> candle_core::Result<Tensor> {
        let evaluation = self.skipped_evaluations + evaluation;
        self.solver
            .predicted_original_sample(evaluation, &state.latents, model_output)
    }

    /// Advances `state` by one evaluation with `model_output`, the network's for [`Sampler::scale_input`] of
    /// its latents. Draws from `noise` [`Sampler::noise_draws`] times.
    ///
    /// # Errors
    /// This sampler did not produce the state, the shapes differ, or the device fails; the state is then
    /// unchanged.
    pub fn step(
        &self,
        evaluation: usize,
        model_output: &Tensor,
        state: &mut SamplerState,
        noise: &mut NoiseSource<'_>,
    ) -> Result<(), StepError> {
        assert!(
            evaluation < self.evaluations(),
            "evaluation {evaluation} of {}",
            self.evaluations()
        );
        self.solver.step(Step {
            kind: self.kind,
            evaluation: self.skipped_evaluations + evaluation,
            done: evaluation,
            model_output,
            state,
            noise,
        })
    }
}

/// The solver of a sampler for diffusion models.
fn diffusion_solver(setup: &Setup<'_>) -> Result<Arc<dyn Solver>, Refusal> {
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
            Arc::new(DpmMultistep::new(setup)?)
        }
        Kind::Dpm2S | Kind::DpmPlusPlus2S | Kind::DpmPlusPlus2SSde => Arc::new(DpmSinglestep::new(setup)?),
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
