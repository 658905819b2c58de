//! `--sampler` and `--scheduler`: from names to what leads a picture, and the lists of what there is.

use sd_pipeline::scheduler::{SamplerChoice, SamplerKind, ScheduleKind};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::settings::Settings;

/// The word in place of a name that asks for the list.
const HELP: &str = "help";

/// The sampler that was asked for, if one was, and its schedule. `--scheduler` wins over what a sampler's name says of it.
pub(crate) fn chosen(settings: &Settings) -> Result<(Option<SamplerKind>, ScheduleKind), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage(error.to_string())
            .advising("`--sampler help` and `--scheduler help` say what each is good for".to_owned())
    };
    let named = match &settings.sampler {
        Some(name) => Some(name.parse::<SamplerChoice>().map_err(|error| wrong(&error))?),
        None => None,
    };
    let schedule = match &settings.scheduler {
        Some(name) => name.parse().map_err(|error| wrong(&error))?,
        None => named.map_or(ScheduleKind::Automatic, |choice| choice.schedule),
    };
    Ok((named.map(|choice| choice.sampler), schedule))
}

/// The list that was asked for in place of a picture, if one was.
pub(crate) fn list(arguments: &Arguments) -> Option<String> {
    let asks = |name: &Option<String>| name.as_deref() == Some(HELP);
    let samplers = SamplerKind::ALL.map(|sampler| (sampler.to_string(), sampler.description()));
    let schedules = ScheduleKind::ALL.map(|schedule| (schedule.to_string(), schedule.description()));
    if asks(&arguments.settings.sampler) {
        Some(table(&samplers))
    } else if asks(&arguments.settings.scheduler) {
        Some(table(&schedules))
    } else {
        None
    }
}

fn table(rows: &[(String, &str)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows
        .iter()
        .map(|(name, description)| format!("{name:width$}  {description}\n"));
    lines.collect()
}
