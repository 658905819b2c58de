//! The lists that `--sampler help`, `--scheduler help` and `--quality help` print.

use sd_catalog::presets::{ALL, Memory, Repository};
use sd_catalog::{AUTO, Catalog, Configuration, Settings, wanted};
use sd_pipeline::Bytes;
use sd_pipeline::bundle::Kind;
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};

use crate::arguments::List;
use crate::wrapping;

/// The lines of `list`, one per name.
pub(crate) fn text(list: List, configuration: &Configuration) -> String {
    match list {
        List::Samplers => {
            table(&SamplerKind::ALL.map(|sampler| (sampler.to_string(), sampler.description())))
        }
        List::Schedules => {
            table(&ScheduleKind::ALL.map(|schedule| (schedule.to_string(), schedule.description())))
        }
        List::Presets => presets(configuration, &Catalog::new(configuration)),
    }
}

/// The built-in presets, then the user's own.
fn presets(configuration: &Configuration, catalog: &Catalog) -> String {
    /// Columns of the names.
    const PRESETS: usize = 15;
    let columns = wrapping::columns();
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
            memory(settings),
            download(settings, catalog),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        wrapping::row(name, PRESETS, &parts.join(", "), columns)
    };
    let built_in = ALL.iter().map(|preset| row(preset.name, &preset.into()));
    let own = configuration
        .presets
        .iter()
        .map(|(name, settings)| row(name, settings));
    let rows: String = built_in.chain(own).collect();
    let auto = "the best built-in preset that is on this machine and fits into its memory";
    format!("{rows}{}", wrapping::row(AUTO, PRESETS, auto, columns))
}

/// What the first run of a preset downloads, and whether its licence must be accepted: "on this machine", "6.5 GB to
/// download".
fn download(settings: &Settings, catalog: &Catalog) -> Option<String> {
    let mut wanted = wanted(settings, catalog.models_path()).unwrap_or_default();
    // A run resamples images if the default upscaler is not here.
    wanted.retain(|part| part.kind != Some(Kind::Upscaler) || settings.upscaler.is_some());
    if wanted.is_empty() {
        return None;
    }
    let missing = wanted.iter().filter(|part| !catalog.has(part));
    let missing: Vec<Option<&Repository>> = missing
        .map(|part| Repository::find(part.reference.id.as_str()))
        .collect();
    if missing.is_empty() {
        return Some("on this machine".to_owned());
    }
    let known: Vec<&Repository> = missing.iter().copied().flatten().collect();
    let bytes = Bytes(
        known
            .iter()
            .map(|repository| repository.megabytes * 1_000_000)
            .sum(),
    );
    let size = match known.len() == missing.len() {
        true => format!("about {bytes} to download"),
        false => "to be downloaded".to_owned(),
    };
    let licence = known.iter().any(|repository| repository.is_gated);
    Some(match licence {
        true => format!("{size} after its licence is accepted"),
        false => size,
    })
}

/// The memory that an image takes with a preset whose model is known, streamed and with all weights in memory.
fn memory(settings: &Settings) -> Option<String> {
    let Memory { smallest, resident } = Memory::of_model(settings.model.as_deref()?)?;
    let gigabytes = |megabytes: u64| format!("{}.{}GB", megabytes / 1000, megabytes % 1000 / 100);
    Some(format!(
        "{} of memory, {} without streaming",
        gigabytes(smallest),
        gigabytes(resident)
    ))
}

fn table(rows: &[(String, &str)]) -> String {
    let columns = wrapping::columns();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows
        .iter()
        .map(|(name, description)| wrapping::row(name, width, description, columns));
    lines.collect()
}
