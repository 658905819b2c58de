//! Why a sampler cannot be made, or cannot go on.

use crate::{SamplerKind, ScheduleKind};

/// Why a sampler cannot draw with a model's scheduler configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The configuration names a scheduler that no sampler here is.
    #[error("its class is `{class_name}`, which no sampler here follows")]
    UnknownClass {
        /// The class.
        class_name: String,
    },
    /// The configuration sets something to a value that is not drawn.
    #[error("it sets `{name}` to `{value}`")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The configuration has a setting that no sampler here obeys, and not at the value that changes nothing.
    #[error("it sets `{name}` to {value}, which no sampler here obeys")]
    UnknownSetting {
        /// The setting.
        name: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A configuration of rectified flow is not drawn, for this reason.
    #[error("{0}")]
    Flow(String),
    /// The sampler is for models of another kind.
    #[error("the sampler {kind} is for {made_for}, which this model is not")]
    OtherModels {
        /// The sampler.
        kind: SamplerKind,
        /// What it is for.
        made_for: &'static str,
    },
    /// The sampler follows the model's own timesteps only.
    #[error("the sampler {kind} cannot follow the schedule {schedule}")]
    Schedule {
        /// The sampler.
        kind: SamplerKind,
        /// The schedule.
        schedule: ScheduleKind,
    },
    /// The sampler cannot use what the model predicts.
    #[error("the sampler {kind} cannot use a model that predicts `{prediction}`")]
    Prediction {
        /// The sampler.
        kind: SamplerKind,
        /// What the model predicts.
        prediction: &'static str,
    },
    /// The sampler cannot be spread over so many steps.
    #[error("the sampler {kind} takes from {least} to {most} steps with this model, not {steps}")]
    Steps {
        /// The sampler.
        kind: SamplerKind,
        /// The steps that were asked for.
        steps: usize,
        /// The fewest that it takes.
        least: usize,
        /// The most that it takes.
        most: usize,
    },
    /// No step is left to be taken.
    #[error("of {steps} steps none is left after the first {skipped} are passed over")]
    NothingLeft {
        /// The steps that were asked for.
        steps: usize,
        /// Those passed over, since the picture begins with less than full noise.
        skipped: usize,
    },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The trajectory lacks what the step builds on: it is not one that this sampler led so far.
    #[error(
        "evaluation {evaluation} of the sampler {kind} needs `{missing}`, which the trajectory does not hold"
    )]
    Trajectory {
        /// The sampler.
        kind: SamplerKind,
        /// The evaluation, counted from 0.
        evaluation: usize,
        /// The name of the tensor that is missing.
        missing: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
