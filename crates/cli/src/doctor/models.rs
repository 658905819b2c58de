//! The facts of models: where they are, how fast they are read, and which presets run here, in what time.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_catalog::presets::ALL;
use sd_catalog::{Catalog, Configuration, Error, Inputs, Layers, Resolved, Settings};
use sd_pipeline::plan::Plan;
use sd_pipeline::{Bytes, PlannedRequest, Request, disk_rate};
use serde_json::json;

use super::{Fact, fact};
use crate::hint::Failure;

/// How long presets are planned. Those that are left are only named.
const LONGEST: Duration = Duration::from_millis(1500);
/// The smallest file whose reading says how fast the disk is.
const SMALLEST: u64 = 64 << 20;
/// A prompt of usual length, for plans.
const PROMPT: &str = "a lighthouse on a cliff at dusk, detailed";

/// The facts.
pub(super) fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    let (configuration, of_configuration) = configuration();
    let catalog = Catalog::new(&configuration);
    facts.push(of_cache(&catalog));
    facts.extend(of_models_path(&catalog));
    facts.extend(of_output(&configuration));
    facts.push(of_disk(&catalog));
    facts.push(of_token(&catalog));
    facts.push(of_configuration);
    facts.extend(of_presets(&catalog, &configuration));
    facts
}

/// The user's configuration. One that cannot be read is a fact, too.
fn configuration() -> (Configuration, Fact) {
    match Configuration::of_user() {
        Ok(configuration) => {
            let presets = configuration.presets.len();
            let text = match (presets, configuration.models_path.len()) {
                (0, 0) => "no presets and no models_path".to_owned(),
                (presets, folders) => format!("{presets} presets, {folders} folders in models_path"),
            };
            let figures = json!({ "presets": presets, "models_path": configuration.models_path });
            (configuration, fact("configuration", text, figures))
        }
        Err(error) => {
            let reason = Failure::from(error).message().to_owned();
            let figures = json!({ "error": reason });
            (
                Configuration::default(),
                fact("configuration", format!("not used: {reason}"), figures),
            )
        }
    }
}

/// The folder of downloaded models.
fn of_cache(catalog: &Catalog) -> Fact {
    let cache = catalog.cache();
    let repositories = cache.repositories();
    let bytes = Bytes(repositories.iter().map(|repository| repository.bytes).sum());
    let (root, free) = (cache.root(), cache.free_space().map(Bytes));
    let mut text = root.display().to_string();
    if !repositories.is_empty() {
        text.push_str(&format!(", {} models of {bytes}", repositories.len()));
    }
    if let Some(free) = free {
        text.push_str(&format!(", {free} free"));
    }
    let figures = json!({ "folder": root, "free": free, "models": repositories.len(), "bytes": bytes });
    fact("cache", text, figures)
}

/// The folders of other programs.
fn of_models_path(catalog: &Catalog) -> Option<Fact> {
    let models_path = catalog.models_path();
    if models_path.roots().is_empty() {
        return None;
    }
    let missing: Vec<String> = models_path
        .missing_roots()
        .map(|root| root.display().to_string())
        .collect();
    let files = models_path.files().len();
    let mut text = format!("{files} files");
    if !missing.is_empty() {
        text.push_str(&format!("; no folder is at {}", missing.join(", ")));
    }
    let figures = json!({ "folders": models_path.roots(), "files": files, "missing": missing });
    Some(fact("models_path", text, figures))
}

/// The room for images, where the configuration sends them to another disk than the working directory's.
fn of_output(configuration: &Configuration) -> Option<Fact> {
    let folder = configuration
        .defaults
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from("."));
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let free = Bytes(sd_hub::Cache::new(&folder).free_space()?);
    let text = format!("{}, {free} free", folder.display());
    Some(fact("output", text, json!({ "folder": folder, "free": free })))
}

/// How fast the disk of the models is read.
fn of_disk(catalog: &Catalog) -> Fact {
    match largest_file(catalog).and_then(|file| Some((disk_rate(&file)?, file))) {
        Some((rate, file)) => {
            let bytes = Bytes(rate as u64);
            let text = format!("reads {bytes} a second");
            fact("disk", text, json!({ "bytes_per_second": bytes, "file": file }))
        }
        None => fact(
            "disk",
            "not measured: there is no model on it",
            json!({ "bytes_per_second": null, "file": null }),
        ),
    }
}

/// The largest file of the models, if it is large enough.
fn largest_file(catalog: &Catalog) -> Option<PathBuf> {
    let revisions = catalog
        .cache()
        .repositories()
        .into_iter()
        .flat_map(|repository| repository.revisions);
    let cached = revisions.flat_map(|revision| {
        let paths = revision.paths();
        paths.into_iter().map(move |path| revision.folder.join(path))
    });
    let kept = catalog.models_path().files().iter().map(|file| file.path.clone());
    let sized = cached.chain(kept).filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        (metadata.is_file() && metadata.len() >= SMALLEST).then_some((metadata.len(), path))
    });
    sized.max_by_key(|(length, _)| *length).map(|(_, path)| path)
}

/// Whether there is a token of the hub. It is not shown, and no server is asked whether it holds.
fn of_token(catalog: &Catalog) -> Fact {
    let settings = sd_hub::Settings::of_user();
    let (text, from) = if settings.token_of_environment.is_some() {
        ("in the environment (HF_TOKEN)".to_owned(), Some("environment"))
    } else if settings.token().is_some() {
        (format!("in {}", settings.token_file.display()), Some("file"))
    } else {
        (
            "none: gated models, such as those of SD 3.5, need one (`generate login`)".to_owned(),
            None,
        )
    };
    let offline = catalog.is_offline();
    let text = match offline {
        true => format!("{text}; offline (HF_HUB_OFFLINE)"),
        false => text,
    };
    fact("token", text, json!({ "from": from, "offline": offline }))
}

/// The presets that are here, each with its plan, and the names of the others.
fn of_presets(catalog: &Catalog, configuration: &Configuration) -> Vec<Fact> {
    let start = Instant::now();
    let built_in = ALL.iter().map(|preset| preset.name);
    let own = configuration.presets.keys().map(String::as_str);
    let own: Vec<&str> = own
        .filter(|name| ALL.iter().all(|preset| preset.name != *name))
        .collect();
    let (mut facts, mut missing) = (Vec::new(), Vec::new());
    for name in built_in.chain(own) {
        match request(catalog, configuration, name) {
            Ok(request) if start.elapsed() < LONGEST => facts.push(of_preset(name, &request)),
            Ok(_) => facts.push(fact(
                format!("preset {name}"),
                format!("here; `generate plan \"PROMPT\" --quality {name}` says in what time"),
                json!({ "here": true }),
            )),
            Err(Error::NotInstalled { .. } | Error::PartlyInstalled { .. }) => missing.push(name),
            Err(error) => {
                let reason = Failure::from(error).message().to_owned();
                let figures = json!({ "here": false, "reason": reason });
                facts.push(fact(
                    format!("preset {name}"),
                    format!("cannot be used: {reason}"),
                    figures,
                ));
            }
        }
    }
    if !missing.is_empty() {
        let text = format!("{} (`generate models pull NAME`)", missing.join(", "));
        facts.push(fact("presets not here", text, json!({ "presets": missing })));
    }
    facts
}

/// The request of a run with the preset `name`, of which nothing is downloaded.
fn request(catalog: &Catalog, configuration: &Configuration, name: &str) -> sd_catalog::Result<Request> {
    let typed = Settings {
        quality: Some(name.to_owned()),
        ..Settings::default()
    };
    let inputs = Inputs {
        prompt: PROMPT.to_owned(),
        ..Inputs::default()
    };
    let no_preset = || Error::NoPreset {
        name: name.to_owned(),
        similar: None,
    };
    let layered = Layers::new(typed, configuration)?
        .settled()
        .ok_or_else(no_preset)?;
    Resolved::new(catalog, inputs, layered)?.request(catalog)
}

/// The plan of a preset that is here.
fn of_preset(name: &str, request: &Request) -> Fact {
    let named = format!("preset {name}");
    match sd_pipeline::planned(request) {
        Ok(PlannedRequest { plan, .. }) => {
            let figures = json!({
                "here": true,
                "fits": true,
                "seconds": plan.duration.map(|duration| duration.as_secs_f64()),
                "predicted_peak": plan.predicted_peak,
                "smallest_budget": plan.smallest_budget,
                "resident_budget": plan.resident_budget,
                "streams": plan.streams(),
            });
            fact(named, in_words(&plan), figures)
        }
        Err(error) => {
            let reason = Failure::from(error).message().to_owned();
            let figures = json!({ "here": true, "fits": false, "reason": reason });
            fact(named, format!("does not run: {reason}"), figures)
        }
    }
}

fn in_words(plan: &Plan) -> String {
    let time = plan.duration.map_or_else(String::new, |duration| {
        format!("an image in about {}, ", rounded(duration))
    });
    let streams = match plan.streams() {
        true => format!(", streamed (without from {} on)", plan.resident_budget),
        false => String::new(),
    };
    format!("{time}{} of memory{streams}", plan.predicted_peak)
}

/// A duration to two digits.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0..10.0 => format!("{seconds:.1} s"),
        10.0..120.0 => format!("{seconds:.0} s"),
        120.0..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
