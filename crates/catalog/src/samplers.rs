//! The sampler and the schedule of the settings.

use sd_pipeline::scheduler::{SamplerChoice, SamplerKind, ScheduleKind, UnknownName};

use crate::error::{Error, MeantSampler, Result};
use crate::settings::Settings;
use crate::similar::similar;

/// The sampler of `settings`, if they name one, and the noise schedule. `scheduler` overrides a schedule in
/// the sampler's name.
///
/// # Errors
/// A name is unknown.
pub(crate) fn named(settings: &Settings) -> Result<(Option<SamplerKind>, ScheduleKind)> {
    let sampler = match &settings.sampler {
        Some(name) => Some(name.parse::<SamplerChoice>().map_err(no_sampler)?),
        None => None,
    };
    let schedule = match &settings.scheduler {
        Some(name) => name.parse().map_err(no_schedule)?,
        None => sampler.map_or(ScheduleKind::Automatic, |choice| choice.schedule),
    };
    Ok((sampler.map(|choice| choice.sampler), schedule))
}

fn no_sampler(unknown: UnknownName) -> Error {
    let is_schedule = unknown.given.parse::<ScheduleKind>().is_ok();
    error(unknown, is_schedule.then_some(MeantSampler::Schedule))
}

fn no_schedule(unknown: UnknownName) -> Error {
    let is_sampler = unknown.given.parse::<SamplerChoice>().is_ok();
    error(unknown, is_sampler.then_some(MeantSampler::Sampler))
}

fn error(unknown: UnknownName, other: Option<MeantSampler>) -> Error {
    let near = similar(&unknown.given, unknown.known.iter().map(String::as_str));
    Error::Sampler {
        reason: unknown.to_string(),
        meant: other.or_else(|| near.map(|name| MeantSampler::Similar(name.to_owned()))),
    }
}
