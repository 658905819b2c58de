//! What all samplers of diffusion models share: the training schedule, the prediction type, and the settings
//! that diffusers' classes have in common.

use crate::config::SchedulerConfig;
use crate::config::known_settings;
use crate::error::Refusal;
use crate::levels::prediction_type::PredictionType;
use crate::levels::sigmas;
use crate::levels::timestep_spacing::{Rounding, TimestepSpacing};
use crate::levels::training_schedule::TrainingSchedule;
use crate::noise_process::NoiseProcess;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// The configuration of a diffusion model as one sampler reads it.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) kind: SamplerKind,
    /// Never automatic.
    pub(crate) schedule: ScheduleKind,
    pub(crate) steps: usize,
    /// Patches of the image; some timestep shifts of rectified flow depend on them.
    pub(crate) patches: usize,
    pub(crate) training: TrainingSchedule,
    pub(crate) prediction_type: PredictionType,
    pub(crate) spacing: TimestepSpacing,
}

/// The variance-exploding noise levels of the steps, and their timesteps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NoiseSchedule {
    pub(crate) timesteps: Vec<f64>,
    pub(crate) sigmas: Vec<f64>,
}

impl<'a> Setup<'a> {
    /// Reads `config` for the sampler `kind`, with the defaults of its class.
    pub(crate) fn new(
        config: &'a SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
        patches: usize,
    ) -> Result<Self, Refusal> {
        let bent = matches!(
            schedule,
            ScheduleKind::Karras | ScheduleKind::Exponential | ScheduleKind::Beta
        );
        if bent && !kind.supports_sigma_schedules() {
            return Err(Refusal::Schedule { kind, schedule });
        }
        let schedule = match schedule {
            ScheduleKind::Automatic => config.configured_schedule(kind),
            other => other,
        };
        let spacing = match (schedule, config.timestep_spacing.as_deref()) {
            (ScheduleKind::SgmUniform, _) => TimestepSpacing::Trailing,
            // The singlestep class has no setting for it.
            _ if kind.is_singlestep() => TimestepSpacing::Linspace,
            (_, Some(name)) => TimestepSpacing::named(name)?,
            (_, None) => match kind {
                _ if !kind.supports_sigma_schedules() => TimestepSpacing::Leading,
                _ => TimestepSpacing::Linspace,
            },
        };
        let setup = Self {
            config,
            kind,
            schedule,
            steps,
            patches,
            training: TrainingSchedule::new(config, kind)?,
            prediction_type: prediction_type(config, kind)?,
            spacing,
        };
        setup.check_supported()?;
        // Where the original sample counts as a timestep, one fewer is left for the steps.
        let most = setup.training.len() - usize::from(setup.rounding() == Rounding::WholeWithEnd);
        // Three Runge-Kutta steps, and at least one more.
        let least = if kind == SamplerKind::PndmRungeKutta { 4 } else { 1 };
        Refusal::check_steps(kind, steps, least..=most)?;
        Ok(setup)
    }

    /// Refuses settings with values that the sampler does not implement.
    fn check_supported(&self) -> Result<(), Refusal> {
        let config = self.config;
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        // TCD's class has the setting and ignores it.
        let thresholds = self.kind != SamplerKind::Tcd
            && known_settings::has(self.kind.diffusers_class(), "thresholding")
            && set(config.thresholding);
        if thresholds {
            return Err(Refusal::setting("thresholding", true));
        }
        let class = self.kind.diffusers_class();
        let interpolation = config.interpolation_type.as_deref().unwrap_or("linear");
        let interpolates =
            interpolation == "linear" || interpolation == "log_linear" && self.kind == SamplerKind::Euler;
        // With both, diffusers takes one step too many.
        let one_more = interpolation == "log_linear" && self.is_continuous();
        if known_settings::has(class, "interpolation_type") && (!interpolates || one_more) {
            return Err(Refusal::setting("interpolation_type", interpolation));
        }
        // Other classes can only pass discrete timesteps to a network that was trained with continuous ones.
        let names_timesteps = config.class_name.as_deref() == Some("EulerDiscreteScheduler")
            || known_settings::has(class, "timestep_type");
        let timesteps = config.timestep_type.as_deref().unwrap_or("discrete");
        let continuous = timesteps == "continuous"
            && (self.prediction_type != PredictionType::VPrediction || self.is_variance_exploding());
        if names_timesteps && timesteps != "discrete" && !continuous {
            return Err(Refusal::setting("timestep_type", timesteps));
        }
        Ok(())
    }

    /// Whether the sampler computes with variance-exploding levels.
    fn is_variance_exploding(&self) -> bool {
        use SamplerKind as Kind;
        matches!(
            self.kind,
            Kind::Euler
                | Kind::EulerAncestral
                | Kind::Heun
                | Kind::Dpm2
                | Kind::Dpm2Ancestral
                | Kind::Lms
                | Kind::DpmPlusPlusSde
                | Kind::DpmPlusPlus2SAncestral
                | Kind::DpmPlusPlus3MSde
        )
    }

    /// Whether the network gets a quarter of the logarithm of sigma in place of a timestep, as in Karras et
    /// al., 2022 (`timestep_type: continuous`).
    pub(crate) fn is_continuous(&self) -> bool {
        let of_file = self.config.class_name.as_deref() == Some("EulerDiscreteScheduler");
        (of_file || known_settings::has(self.kind.diffusers_class(), "timestep_type"))
            && self.config.timestep_type.as_deref() == Some("continuous")
            && self.prediction_type == PredictionType::VPrediction
    }

    /// Whether the model was trained with rectified flow.
    pub(crate) fn is_flow(&self) -> bool {
        self.config.process() == NoiseProcess::Flow
    }

    /// How the class of the sampler rounds timesteps.
    fn rounding(&self) -> Rounding {
        match self.kind {
            kind if !kind.supports_sigma_schedules() => Rounding::Whole,
            SamplerKind::UniPc | SamplerKind::Deis => Rounding::WholeWithEnd,
            kind if kind.is_multistep() || kind.is_singlestep() => Rounding::WholeWithEnd,
            _ => Rounding::Between,
        }
    }

    /// The timesteps of the steps, chosen from the training timesteps below `end`.
    pub(crate) fn timesteps(&self, end: usize) -> Vec<f64> {
        let ends = (end, self.training.len());
        let offset = self.config.steps_offset.unwrap_or(0);
        self.spacing.timesteps(self.rounding(), ends, self.steps, offset)
    }

    /// The timesteps as whole numbers, falling. `steps_offset` is limited so that none exceeds the last
    /// training timestep.
    pub(crate) fn whole_timesteps(&self) -> Vec<i64> {
        let last = self.training.len() as i64 - 1;
        let timesteps = self.timesteps(self.training.len()).into_iter();
        timesteps.map(|timestep| (timestep as i64).min(last)).collect()
    }

    /// The noise levels at `timesteps`, or those along the schedule's curve. The curve spans `range` (lowest
    /// and highest level), or without one the levels of the first and last timestep.
    pub(crate) fn noise_schedule(&self, timesteps: Vec<f64>, range: Option<(f64, f64)>) -> NoiseSchedule {
        let table = self.training.sigmas();
        let sigmas: Vec<f64> = timesteps
            .iter()
            .map(|&timestep| sigmas::at_timestep(timestep, &table))
            .collect();
        let (sigma_min, sigma_max) = range.unwrap_or_else(|| {
            let last = sigmas.last().copied().unwrap_or_default();
            (last, sigmas.first().copied().unwrap_or_default())
        });
        let sigma_min = self.config.sigma_min.unwrap_or(sigma_min);
        let sigma_max = self.config.sigma_max.unwrap_or(sigma_max);
        match sigmas::curve(self.schedule, sigma_min, sigma_max, timesteps.len()) {
            Some(sigmas) => NoiseSchedule {
                timesteps: self.to_timesteps(&sigmas),
                sigmas,
            },
            None => NoiseSchedule { timesteps, sigmas },
        }
    }

    /// The fractional timesteps of noise levels.
    pub(crate) fn to_timesteps(&self, sigmas: &[f64]) -> Vec<f64> {
        let logarithms: Vec<f32> = self.training.sigmas().iter().map(|sigma| sigma.ln()).collect();
        let timesteps = sigmas.iter();
        timesteps
            .map(|&sigma| sigmas::to_timestep(sigma, &logarithms))
            .collect()
    }

    /// Whether the last step ends at the lowest training noise level, not at the original sample:
    /// `final_sigmas_type` is `sigma_min`.
    pub(crate) fn ends_at_sigma_min(&self) -> Result<bool, Refusal> {
        // DPM-Solver (without ++) divides by the last level.
        let must = matches!(
            self.kind,
            SamplerKind::Dpm2M | SamplerKind::Dpm2MSde | SamplerKind::Dpm2S
        );
        match self.config.final_sigmas_type.as_deref() {
            None => Ok(must),
            Some("zero") if !must => Ok(false),
            Some("sigma_min") => Ok(true),
            Some(other) => Err(Refusal::setting("final_sigmas_type", other)),
        }
    }

    /// The share of DDPM's noise that DDIM and TCD add.
    pub(crate) fn eta(&self) -> Result<f32, Refusal> {
        match self.config.eta.unwrap_or(0.0) {
            eta if (0.0..=1.0).contains(&eta) => Ok(eta as f32),
            other => Err(Refusal::setting("eta", other)),
        }
    }

    /// The range, around 0, to which predicted original samples are clipped: `clip_sample` and
    /// `clip_sample_range`.
    pub(crate) fn clip_sample_range(&self) -> Option<f32> {
        let default = matches!(self.kind, SamplerKind::Ddim | SamplerKind::Ddpm);
        // TCD's class has the setting and ignores it.
        let clips = self.kind != SamplerKind::Tcd && self.config.clip_sample.unwrap_or(default);
        clips.then(|| self.config.clip_sample_range.unwrap_or(1.0) as f32)
    }
}

fn prediction_type(config: &SchedulerConfig, kind: SamplerKind) -> Result<PredictionType, Refusal> {
    if config.is_flow_match() {
        return Ok(PredictionType::Flow);
    }
    let prediction = match config.prediction_type.as_deref().unwrap_or("epsilon") {
        "flow_prediction" if config.use_flow_sigmas == Some(true) => PredictionType::Flow,
        "epsilon" => PredictionType::Epsilon,
        "v_prediction" => PredictionType::VPrediction,
        "sample" => PredictionType::Sample,
        other => {
            return Err(Refusal::setting("prediction_type", other));
        }
    };
    let takes_samples = !matches!(
        kind,
        SamplerKind::EulerAncestral
            | SamplerKind::Dpm2
            | SamplerKind::Dpm2Ancestral
            | SamplerKind::Pndm
            | SamplerKind::PndmRungeKutta
            | SamplerKind::DpmPlusPlusSde
    );
    if prediction == PredictionType::Sample && !takes_samples {
        let prediction = prediction.name();
        return Err(Refusal::Prediction { kind, prediction });
    }
    Ok(prediction)
}
