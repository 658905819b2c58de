//! The lists that `--sampler help`, `--scheduler help` and `--quality help` print.

use sd_catalog::presets::ALL;
use sd_catalog::{AUTO, Configuration, Settings};
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};

use crate::arguments::List;

/// The lines of `list`, one per name.
pub(crate) fn text(list: List, configuration: &Configuration) -> String {
    match list {
        List::Samplers => {
            table(&SamplerKind::ALL.map(|sampler| (sampler.to_string(), sampler.description())))
        }
        List::Schedules => {
            table(&ScheduleKind::ALL.map(|schedule| (schedule.to_string(), schedule.description())))
        }
        List::Presets => presets(configuration),
    }
}

/// The built-in presets, then the user's own.
fn presets(configuration: &Configuration) -> String {
    let row = |name: &str, settings: &Settings| {
        let parts = [
            settings.quality.as_ref().map(|name| format!("as `{name}`")),
            settings.model.clone(),
            settings.steps.map(|steps| format!("{steps} steps")),
            (!settings.lora.is_empty()).then(|| format!("with {}", settings.lora.join(" and "))),
            settings
                .refiner
                .as_ref()
                .map(|refiner| format!("refined by {refiner}")),
            settings.upscale.map(|factor| format!("upscaled by {factor}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{name:16} {}\n", parts.join(", "))
    };
    let built_in = ALL.iter().map(|preset| row(preset.name, &preset.into()));
    let own = configuration
        .presets
        .iter()
        .map(|(name, settings)| row(name, settings));
    let rows: String = built_in.chain(own).collect();
    format!("{rows}{AUTO:16} the best built-in preset that is on this machine and fits into its memory\n")
}

fn table(rows: &[(String, &str)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows
        .iter()
        .map(|(name, description)| format!("{name:width$}  {description}\n"));
    lines.collect()
}
