//! What every sampler of a diffusion model begins with: the model's noise table, what it predicts, and the
//! settings that the classes of diffusers share.

use crate::betas::NoiseTable;
use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::level::Prediction;
use crate::process::NoiseProcess;
use crate::schedule_kind::ScheduleKind;
use crate::settings;
use crate::sigmas::{self, Rounding, Spacing};

/// A diffusion model's configuration, as one sampler reads it.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) kind: SamplerKind,
    /// Never automatic.
    pub(crate) schedule: ScheduleKind,
    pub(crate) steps: usize,
    /// The picture's, on which some shifts of rectified flow depend.
    pub(crate) patches: usize,
    pub(crate) table: NoiseTable,
    pub(crate) prediction: Prediction,
    pub(crate) spacing: Spacing,
}

/// Noise levels and the timesteps that the network is told of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    pub(crate) timesteps: Vec<f64>,
    pub(crate) sigmas: Vec<f64>,
}

impl<'a> Setup<'a> {
    /// Reads what all samplers need.
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
        if bent && !kind.bends() {
            return Err(Refusal::Schedule { kind, schedule });
        }
        let schedule = match schedule {
            ScheduleKind::Automatic => config.own_schedule(kind),
            other => other,
        };
        let spacing = match (schedule, config.timestep_spacing.as_deref()) {
            (ScheduleKind::SgmUniform, _) => Spacing::Trailing,
            // Its class has no other.
            _ if kind.is_singlestep() => Spacing::Linspace,
            (_, Some(name)) => Spacing::named(name)?,
            (_, None) => match kind {
                _ if !kind.bends() => Spacing::Leading,
                _ => Spacing::Linspace,
            },
        };
        let setup = Self {
            config,
            kind,
            schedule,
            steps,
            patches,
            table: NoiseTable::new(config, kind)?,
            prediction: prediction(config, kind)?,
            spacing,
        };
        setup.refuse_what_is_not_drawn()?;
        // One more timestep must fit between those of the training where the picture itself is counted as one.
        let most = setup.table.len() - usize::from(setup.rounding() == Rounding::WholeWithEnd);
        // Runge-Kutta takes three steps, and then there must be one more.
        let least = if kind == SamplerKind::PndmRungeKutta { 4 } else { 1 };
        if steps < least || steps > most {
            return Err(Refusal::Steps {
                kind,
                steps,
                least,
                most,
            });
        }
        Ok(setup)
    }

    fn refuse_what_is_not_drawn(&self) -> Result<(), Refusal> {
        let config = self.config;
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        // TCD's class has the setting and does not look at it.
        let thresholds = self.kind != SamplerKind::Tcd
            && settings::has(self.kind.diffusers_class(), "thresholding")
            && set(config.thresholding);
        if thresholds {
            return Err(Refusal::Setting {
                name: "thresholding",
                value: "true".to_owned(),
            });
        }
        let class = self.kind.diffusers_class();
        let interpolation = config.interpolation_type.as_deref().unwrap_or("linear");
        let interpolates =
            interpolation == "linear" || interpolation == "log_linear" && self.kind == SamplerKind::Euler;
        // With both, diffusers takes a step more than is asked for.
        let one_more = interpolation == "log_linear" && self.is_continuous();
        if settings::has(class, "interpolation_type") && (!interpolates || one_more) {
            return Err(Refusal::Setting {
                name: "interpolation_type",
                value: interpolation.to_owned(),
            });
        }
        // Others can only name timesteps of the table to a network that was trained without one.
        let names_timesteps = config.class_name.as_deref() == Some("EulerDiscreteScheduler")
            || settings::has(class, "timestep_type");
        let timesteps = config.timestep_type.as_deref().unwrap_or("discrete");
        let continuous =
            timesteps == "continuous" && (self.prediction != Prediction::Velocity || self.is_exploding());
        if names_timesteps && timesteps != "discrete" && !continuous {
            return Err(Refusal::Setting {
                name: "timestep_type",
                value: timesteps.to_owned(),
            });
        }
        Ok(())
    }

    /// Whether its sampler takes latents as a picture with noise added to it.
    fn is_exploding(&self) -> bool {
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

    /// Whether the network is told a quarter of the logarithm of the noise level in place of a timestep, as Karras et al. have
    /// it.
    pub(crate) fn is_continuous(&self) -> bool {
        let of_file = self.config.class_name.as_deref() == Some("EulerDiscreteScheduler");
        (of_file || settings::has(self.kind.diffusers_class(), "timestep_type"))
            && self.config.timestep_type.as_deref() == Some("continuous")
            && self.prediction == Prediction::Velocity
    }

    /// Whether noise levels are those of rectified flow.
    pub(crate) fn is_flow(&self) -> bool {
        self.config.process() == NoiseProcess::Flow
    }

    fn rounding(&self) -> Rounding {
        match self.kind {
            kind if !kind.bends() => Rounding::Whole,
            SamplerKind::UniPc | SamplerKind::Deis => Rounding::WholeWithEnd,
            kind if kind.is_multistep() || kind.is_singlestep() => Rounding::WholeWithEnd,
            _ => Rounding::Between,
        }
    }

    /// The timesteps of the steps, of those before `end`, as numbers of the training.
    pub(crate) fn timesteps(&self, end: usize) -> Vec<f64> {
        let ends = (end, self.table.len());
        let offset = self.config.steps_offset.unwrap_or(0);
        self.spacing.timesteps(self.rounding(), ends, self.steps, offset)
    }

    /// The timesteps as whole numbers, falling. An offset goes no further than the last one.
    pub(crate) fn whole_timesteps(&self) -> Vec<i64> {
        let last = self.table.len() as i64 - 1;
        let timesteps = self.timesteps(self.table.len()).into_iter();
        timesteps.map(|timestep| (timestep as i64).min(last)).collect()
    }

    /// Noise levels along the timesteps, or along the schedule's curve between `range`'s (or, without one,
    /// between those of the first and the last timestep).
    pub(crate) fn spread(&self, timesteps: Vec<f64>, range: Option<(f64, f64)>) -> Spread {
        let table = self.table.sigmas();
        let sigmas: Vec<f64> = timesteps
            .iter()
            .map(|&timestep| sigmas::at_timestep(timestep, &table))
            .collect();
        let (least, most) = range.unwrap_or_else(|| {
            let last = sigmas.last().copied().unwrap_or_default();
            (last, sigmas.first().copied().unwrap_or_default())
        });
        let least = self.config.sigma_min.unwrap_or(least);
        let most = self.config.sigma_max.unwrap_or(most);
        match sigmas::curve(self.schedule, least, most, timesteps.len()) {
            Some(sigmas) => Spread {
                timesteps: self.to_timesteps(&sigmas),
                sigmas,
            },
            None => Spread { timesteps, sigmas },
        }
    }

    /// The timesteps, whole or not, of noise levels.
    pub(crate) fn to_timesteps(&self, sigmas: &[f64]) -> Vec<f64> {
        let logarithms: Vec<f32> = self.table.sigmas().iter().map(|sigma| sigma.ln()).collect();
        let timesteps = sigmas.iter();
        timesteps
            .map(|&sigma| sigmas::to_timestep(sigma, &logarithms))
            .collect()
    }

    /// Whether the last step ends at the smallest noise level of the training instead of at the picture.
    pub(crate) fn ends_at_least_noise(&self) -> Result<bool, Refusal> {
        // DPM-Solver without ++ divides by the last level.
        let must = matches!(
            self.kind,
            SamplerKind::Dpm2M | SamplerKind::Dpm2MSde | SamplerKind::Dpm2S
        );
        match self.config.final_sigmas_type.as_deref() {
            None => Ok(must),
            Some("zero") if !must => Ok(false),
            Some("sigma_min") => Ok(true),
            Some(other) => Err(Refusal::Setting {
                name: "final_sigmas_type",
                value: other.to_owned(),
            }),
        }
    }

    /// How much noise DDIM and TCD add.
    pub(crate) fn eta(&self) -> Result<f32, Refusal> {
        match self.config.eta.unwrap_or(0.0) {
            eta if (0.0..=1.0).contains(&eta) => Ok(eta as f32),
            other => Err(Refusal::Setting {
                name: "eta",
                value: other.to_string(),
            }),
        }
    }

    /// How far from 0 the numbers of a predicted picture may lie.
    pub(crate) fn clip(&self) -> Option<f32> {
        let usual = matches!(self.kind, SamplerKind::Ddim | SamplerKind::Ddpm);
        // TCD's class has the setting and does not look at it.
        let clips = self.kind != SamplerKind::Tcd && self.config.clip_sample.unwrap_or(usual);
        clips.then(|| self.config.clip_sample_range.unwrap_or(1.0) as f32)
    }
}

fn prediction(config: &SchedulerConfig, kind: SamplerKind) -> Result<Prediction, Refusal> {
    if config.is_flow_match() {
        return Ok(Prediction::Flow);
    }
    let prediction = match config.prediction_type.as_deref().unwrap_or("epsilon") {
        "flow_prediction" if config.use_flow_sigmas == Some(true) => Prediction::Flow,
        "epsilon" => Prediction::Epsilon,
        "v_prediction" => Prediction::Velocity,
        "sample" => Prediction::Sample,
        other => {
            return Err(Refusal::Setting {
                name: "prediction_type",
                value: other.to_owned(),
            });
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
    if prediction == Prediction::Sample && !takes_samples {
        let prediction = prediction.name();
        return Err(Refusal::Prediction { kind, prediction });
    }
    Ok(prediction)
}
