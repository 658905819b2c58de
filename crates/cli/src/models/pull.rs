//! `generate models pull`: downloads the models of presets, or the repositories of ids.

use sd_catalog::presets::DEMO;
use sd_catalog::{Catalog, Configuration, Wanted, reference, wanted};
use serde_json::json;

use crate::arguments::ModelsArguments;
use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::terminal;

pub(super) fn run(names: &[String], arguments: &ModelsArguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    let catalog = Catalog::new(&configuration);
    let mut all: Vec<Wanted> = Vec::new();
    for name in names {
        for part in parts(name, &configuration, &catalog)? {
            if !all.contains(&part) {
                all.push(part);
            }
        }
    }
    if all.is_empty() {
        if !arguments.quiet {
            terminal::note("Nothing to download: everything is on this machine already.");
        }
        return Ok(());
    }
    let mut progress = DownloadProgress::new(arguments.printer());
    let folders = catalog.fetch(&all, &mut progress)?;
    for (part, folder) in all.iter().zip(folders) {
        let path = match &part.reference.file {
            Some(file) => sd_files::below(&folder, file),
            None => folder,
        };
        if arguments.json {
            let name = part.reference.to_string();
            terminal::print_json(json!({ "event": "pulled", "name": name, "place": path }));
        } else {
            terminal::print_path(&path);
        }
    }
    Ok(())
}

/// What `name` stands for: all parts of a preset, its upscaler among them, or the repository of an id.
fn parts(name: &str, configuration: &Configuration, catalog: &Catalog) -> Result<Vec<Wanted>, Failure> {
    if name == DEMO {
        return Ok(Vec::new());
    }
    if !name.contains('/') {
        return Ok(wanted(&configuration.preset(name)?, catalog.models_path())?);
    }
    match reference(name) {
        Some(reference) => Ok(vec![Wanted {
            reference,
            kind: None,
        }]),
        None => Err(Failure::no_such_name(name)),
    }
}
