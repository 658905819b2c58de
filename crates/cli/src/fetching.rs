//! From names on the hub to files in the cache: what is used of each is chosen, told of, and fetched.

use std::path::{Path, PathBuf};

use sd_hub::{Download, Hub, Listing, Reference, Settings};
use sd_pipeline::bundle::{Choice, Kind};
use sd_pipeline::{Bytes, adapter_settings};
use serde_json::{Value, json};

use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::{local_models, signals, terminal};

/// Something on the hub that is to be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What it is called.
    pub(crate) reference: Reference,
    /// What it is used as, where that is known.
    pub(crate) kind: Option<Kind>,
}

/// Fetches what is missing of `wanted`, and returns where each is.
pub(crate) fn fetch(wanted: &[Wanted], printer: Printer) -> Result<Vec<PathBuf>, Failure> {
    let interrupt = signals::interrupt()?;
    let is_stopped = || interrupt.is_raised();
    let hub = Hub::new(Settings::of_user());
    let mut downloads = Vec::with_capacity(wanted.len());
    for Wanted { reference, kind } in wanted {
        let listing = hub.list(reference, &is_stopped)?;
        let paths = chosen(&hub, &listing, reference, *kind, &is_stopped)?;
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        downloads.push(hub.prepare(&listing, &paths, &is_stopped)?);
    }
    announce(&downloads, printer);
    let mut download_progress = DownloadProgress::new(printer, interrupt);
    let fetched = hub.fetch(&downloads, &mut download_progress);
    download_progress.finish();
    Ok(fetched?)
}

/// The first of the small files at `paths` that there is of what `reference` names, with its path. None where the hub may
/// not be asked.
pub(crate) fn read_if_online<'a>(
    reference: &Reference,
    paths: &[&'a str],
) -> Result<Option<(&'a str, Vec<u8>)>, Failure> {
    let settings = Settings::of_user();
    if settings.offline {
        return Ok(None);
    }
    let interrupt = signals::interrupt()?;
    let is_stopped = || interrupt.is_raised();
    let hub = Hub::new(settings);
    let listing = hub.list(reference, &is_stopped)?;
    let there = listing.paths();
    match paths.iter().find(|path| there.contains(path)) {
        Some(path) => Ok(Some((path, hub.read(&listing, path, &is_stopped)?))),
        None => Ok(None),
    }
}

/// The paths of the files that are used of what `reference` names.
fn chosen(
    hub: &Hub,
    listing: &Listing,
    reference: &Reference,
    kind: Option<Kind>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Vec<String>, Failure> {
    if let Some(file) = &reference.file {
        // What says how strongly a LoRA is added may lie beside it.
        let settings = adapter_settings(Path::new(file)).and_then(|path| path.to_str().map(str::to_owned));
        let settings = settings.filter(|path| listing.paths().contains(&path.as_str()));
        return Ok([file.clone()].into_iter().chain(settings).collect());
    }
    let paths = listing.paths();
    let Some(kind) = kind.or_else(|| Kind::of(&paths)) else {
        return Err(Failure::unusable(
            reference,
            "a model, a ControlNet, a LoRA or an upscaler",
        ));
    };
    let index = match kind {
        Kind::Model if paths.contains(&local_models::INDEX) => {
            Some(hub.read(listing, local_models::INDEX, is_stopped)?)
        }
        _ => None,
    };
    match kind.wanted(&paths, index.as_deref()) {
        Choice::Files(files) => Ok(files.into_iter().map(str::to_owned).collect()),
        Choice::OneOf(files) => Err(Failure::several(&reference.to_string(), &files)),
        Choice::Missing(what) => Err(Failure::unusable(reference, &what)),
    }
}

/// Says how much is to come before it does.
fn announce(downloads: &[Download], printer: Printer) {
    let total = |bytes: fn(&Download) -> u64| downloads.iter().map(bytes).sum::<u64>();
    let (all, left) = (total(Download::bytes), total(Download::bytes_left));
    if printer.json {
        let of = |download: &Download| json!({ "id": download.id().as_str(), "bytes": download.bytes(), "bytes_left": download.bytes_left() });
        let repositories: Vec<Value> = downloads.iter().map(of).collect();
        let event =
            json!({ "event": "download", "bytes": all, "bytes_left": left, "repositories": repositories });
        terminal::print_json(&event);
    } else if !printer.quiet && left > 0 {
        let of = |download: &Download| format!("{} ({})", download.id(), Bytes(download.bytes()));
        let what = match downloads {
            [download] => format!("{}: {}", download.id(), Bytes(all)),
            several => format!(
                "{} of {}",
                Bytes(all),
                several.iter().map(of).collect::<Vec<_>>().join(", ")
            ),
        };
        let here = match all - left {
            0 => String::new(),
            here => format!(", {} of it here already", Bytes(here)),
        };
        terminal::note(&format!("Downloading {what}{here}"));
    }
}
