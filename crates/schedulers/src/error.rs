//! Why a sampler cannot be built for a model, and why a step fails.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// Why the text of a scheduler's configuration cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is not JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A value has another type than its setting.
    #[error("`{name}`: {reason}")]
    Setting {
        /// The setting.
        name: String,
        /// What is wrong with the value.
        reason: String,
    },
}

impl From<serde_path_to_error::Error<serde_json::Error>> for ConfigError {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self::Setting {
            name: error.path().to_string(),
            reason: error.into_inner().to_string(),
        }
    }
}

/// Why no sampler can be built from a model's scheduler configuration and the user's choice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The configuration names a scheduler class that no sampler implements.
    #[error("its class is `{class_name}`, which no sampler here follows")]
    UnknownClass {
        /// The class.
        class_name: String,
    },
    /// The configuration has a setting with a value that is not supported.
    #[error("it sets `{name}` to `{value}`")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The configuration has a setting that no sampler obeys, with a value that is not its default.
    #[error("it sets `{name}` to {value}, which no sampler here obeys")]
    UnknownSetting {
        /// The setting.
        name: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A configuration of rectified flow is not supported, for this reason.
    #[error("{0}")]
    Flow(String),
    /// The sampler is for models that are trained with another noise process.
    #[error("the sampler {kind} is for {made_for}, which this model is not")]
    OtherModels {
        /// The sampler.
        kind: SamplerKind,
        /// The models that it is for.
        made_for: &'static str,
    },
    /// The sampler supports only the model's own timesteps.
    #[error("the sampler {kind} cannot follow the schedule {schedule}")]
    Schedule {
        /// The sampler.
        kind: SamplerKind,
        /// The schedule.
        schedule: ScheduleKind,
    },
    /// The sampler supports only the model's own timesteps with models of rectified flow.
    #[error(
        "the schedule {schedule} does not work with the sampler {kind} on this model, which is one of rectified flow"
    )]
    FlowSchedule {
        /// The sampler.
        kind: SamplerKind,
        /// The schedule.
        schedule: ScheduleKind,
    },
    /// The sampler does not support the model's prediction type.
    #[error("the sampler {kind} cannot use a model that predicts `{prediction}`")]
    Prediction {
        /// The sampler.
        kind: SamplerKind,
        /// What the model predicts.
        prediction: &'static str,
    },
    /// The sampler cannot take this number of steps.
    #[error("the sampler {kind} takes from {least} to {most} steps with this model, not {steps}")]
    Steps {
        /// The sampler.
        kind: SamplerKind,
        /// The requested number of steps.
        steps: usize,
        /// The lowest supported number.
        least: usize,
        /// The highest supported number.
        most: usize,
    },
    /// Image-to-image skips all steps.
    #[error("of {steps} steps none is left after the first {skipped} are passed over")]
    NothingLeft {
        /// The requested number of steps.
        steps: usize,
        /// The number of skipped steps, since the image begins with less than full noise.
        skipped: usize,
    },
}

impl Refusal {
    /// The refusal of the setting `name` with `value`.
    pub(crate) fn setting(name: &'static str, value: impl Display) -> Self {
        Self::Setting {
            name,
            value: value.to_string(),
        }
    }

    /// Refuses `steps` outside of `supported`.
    pub(crate) fn check_steps(
        kind: SamplerKind,
        steps: usize,
        supported: RangeInclusive<usize>,
    ) -> Result<(), Self> {
        if supported.contains(&steps) {
            return Ok(());
        }
        let (least, most) = supported.into_inner();
        Err(Self::Steps {
            kind,
            steps,
            least,
            most,
        })
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The state lacks a tensor that the step needs: this sampler did not produce the state.
    #[error(
        "evaluation {evaluation} of the sampler {kind} needs `{missing}`, which the sampler's state does not hold"
    )]
    State {
        /// The sampler.
        kind: SamplerKind,
        /// The evaluation, counted from 0.
        evaluation: usize,
        /// The name of the missing tensor.
        missing: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
