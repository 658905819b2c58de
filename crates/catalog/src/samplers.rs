//! The sampler and the schedule of the settings.

use sd_pipeline::scheduler::{SamplerChoice, SamplerKind, ScheduleKind};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The sampler of `settings`, if they name one, and the noise schedule. `scheduler` overrides a schedule in
/// the sampler's name.
///
/// # Errors
/// A name is unknown.
pub(crate) fn named(settings: &Settings) -> Result<(Option<SamplerKind>, ScheduleKind)> {
    let unknown = |error: &dyn std::fmt::Display| Error::Sampler {
        reason: error.to_string(),
    };
    let sampler = match &settings.sampler {
        Some(name) => Some(name.parse::<SamplerChoice>().map_err(|error| unknown(&error))?),
        None => None,
    };
    let schedule = match &settings.scheduler {
        Some(name) => name.parse().map_err(|error| unknown(&error))?,
        None => sampler.map_or(ScheduleKind::Automatic, |choice| choice.schedule),
    };
    Ok((sampler.map(|choice| choice.sampler), schedule))
}
