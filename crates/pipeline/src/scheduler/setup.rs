//! What every sampler of a diffusion model begins with: the model's noise table, what it predicts, and the
//! settings that the classes of diffusers share.

use super::betas::NoiseTable;
use super::config::SchedulerConfig;
use super::error::Refusal;
use super::kind::SamplerKind;
use super::level::Prediction;
use super::schedule_kind::ScheduleKind;
use super::sigmas::{self, Rounding, Spacing};

/// A diffusion model's configuration, as one sampler reads it.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) config: &'a SchedulerConfig,
    pub(super) kind: SamplerKind,
    /// Never automatic.
    pub(super) schedule: ScheduleKind,
    pub(super) steps: usize,
    pub(super) table: NoiseTable,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
}

/// Noise levels and the timesteps that the network is told of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spread {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f64>,
}

impl<'a> Setup<'a> {
    /// Reads what all samplers need.
    pub(super) fn new(
        config: &'a SchedulerConfig,
        kind: SamplerKind,
        schedule: ScheduleKind,
        steps: usize,
    ) -> Result<Self, Refusal> {
        let bent = matches!(
            schedule,
            ScheduleKind::Karras | ScheduleKind::Exponential | ScheduleKind::Beta
        );
        if bent && !kind.bends() {
            return Err(Refusal::Schedule { kind, schedule });
        }
        let schedule = match schedule {
            ScheduleKind::Automatic if kind.bends() => config.own_schedule(),
            ScheduleKind::Automatic => ScheduleKind::Normal,
            other => other,
        };
        let spacing = match (schedule, config.timestep_spacing.as_deref()) {
            (ScheduleKind::SgmUniform, _) => Spacing::Trailing,
            (_, Some(name)) => Spacing::named(name)?,
            (_, None) => match kind {
                SamplerKind::Ddim | SamplerKind::Ddpm | SamplerKind::Pndm | SamplerKind::Lcm => {
                    Spacing::Leading
                }
                _ => Spacing::Linspace,
            },
        };
        let setup = Self {
            config,
            kind,
            schedule,
            steps,
            table: NoiseTable::new(config, kind)?,
            prediction: prediction(config, kind)?,
            spacing,
        };
        setup.refuse_what_is_not_drawn()?;
        // One more timestep must fit between those of the training where the picture itself is counted as one.
        let most = setup.table.len() - usize::from(setup.rounding() == Rounding::WholeWithEnd);
        if steps == 0 || steps > most {
            return Err(Refusal::Steps { kind, steps, most });
        }
        Ok(setup)
    }

    fn refuse_what_is_not_drawn(&self) -> Result<(), Refusal> {
        let config = self.config;
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        let other =
            |value: &Option<String>, usual: &str| value.as_deref().is_some_and(|value| value != usual);
        let thresholds = matches!(
            self.kind,
            SamplerKind::Ddim
                | SamplerKind::Ddpm
                | SamplerKind::Lcm
                | SamplerKind::UniPc
                | SamplerKind::DpmPlusPlus2M
                | SamplerKind::DpmPlusPlus2MSde
        );
        let is_euler = self.kind == SamplerKind::Euler;
        let follows_lu = self.schedule == ScheduleKind::Normal
            && matches!(
                self.kind,
                SamplerKind::DpmPlusPlus2M | SamplerKind::DpmPlusPlus2MSde
            );
        let refused = [
            ("thresholding", thresholds && set(config.thresholding), "true"),
            ("use_lu_lambdas", follows_lu && set(config.use_lu_lambdas), "true"),
            (
                "interpolation_type",
                is_euler && other(&config.interpolation_type, "linear"),
                "log_linear",
            ),
            (
                "timestep_type",
                is_euler && other(&config.timestep_type, "discrete"),
                "continuous",
            ),
        ];
        match refused.iter().find(|(_, set, _)| *set) {
            Some((name, _, value)) => Err(Refusal::Setting {
                name,
                value: (*value).to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn rounding(&self) -> Rounding {
        match self.kind {
            SamplerKind::Ddim | SamplerKind::Ddpm | SamplerKind::Pndm | SamplerKind::Lcm => Rounding::Whole,
            SamplerKind::DpmPlusPlus2M | SamplerKind::DpmPlusPlus2MSde | SamplerKind::UniPc => {
                Rounding::WholeWithEnd
            }
            _ => Rounding::Between,
        }
    }

    /// The timesteps of the steps, of those before `end`, as numbers of the training.
    pub(super) fn timesteps(&self, end: usize) -> Vec<f64> {
        let ends = (end, self.table.len());
        let offset = self.config.steps_offset.unwrap_or(0);
        self.spacing.timesteps(self.rounding(), ends, self.steps, offset)
    }

    /// The timesteps as whole numbers, falling. An offset goes no further than the last one.
    pub(super) fn whole_timesteps(&self) -> Vec<i64> {
        let last = self.table.len() as i64 - 1;
        let timesteps = self.timesteps(self.table.len()).into_iter();
        timesteps.map(|timestep| (timestep as i64).min(last)).collect()
    }

    /// Noise levels along the timesteps, or along the schedule's curve between `range`'s (or, without one,
    /// between those of the first and the last timestep).
    pub(super) fn spread(&self, timesteps: Vec<f64>, range: Option<(f64, f64)>) -> Spread {
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
    pub(super) fn to_timesteps(&self, sigmas: &[f64]) -> Vec<f64> {
        let logarithms: Vec<f32> = self.table.sigmas().iter().map(|sigma| sigma.ln()).collect();
        let timesteps = sigmas.iter();
        timesteps
            .map(|&sigma| sigmas::to_timestep(sigma, &logarithms))
            .collect()
    }

    /// Whether the last step ends at the smallest noise level of the training instead of at the picture.
    pub(super) fn ends_at_least_noise(&self) -> Result<bool, Refusal> {
        match self.config.final_sigmas_type.as_deref() {
            None | Some("zero") => Ok(false),
            Some("sigma_min") => Ok(true),
            Some(other) => Err(Refusal::Setting {
                name: "final_sigmas_type",
                value: other.to_owned(),
            }),
        }
    }

    /// How far from 0 the numbers of a predicted picture may lie.
    pub(super) fn clip(&self) -> Option<f32> {
        let usual = matches!(self.kind, SamplerKind::Ddim | SamplerKind::Ddpm);
        let clips = self.config.clip_sample.unwrap_or(usual);
        clips.then(|| self.config.clip_sample_range.unwrap_or(1.0) as f32)
    }
}

fn prediction(config: &SchedulerConfig, kind: SamplerKind) -> Result<Prediction, Refusal> {
    let prediction = match config.prediction_type.as_deref().unwrap_or("epsilon") {
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
        SamplerKind::EulerAncestral | SamplerKind::Pndm | SamplerKind::DpmPlusPlusSde
    );
    if prediction == Prediction::Sample && !takes_samples {
        let prediction = prediction.name();
        return Err(Refusal::Prediction { kind, prediction });
    }
    Ok(prediction)
}
