//! `generate models pull`: fetches all that presets use, or what ids name.

use sd_catalog::presets::DEMO;
use sd_catalog::{Catalog, Configuration, Wanted, reference, wanted};
use serde_json::json;

use crate::arguments::ModelsArguments;
use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::terminal;

pub(super) fn run(names: &[String], arguments: &ModelsArguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    let mut all: Vec<Wanted> = Vec::new();
    for name in names {
        for part in parts(name, &configuration)? {
            if !all.contains(&part) {
                all.push(part);
            }
        }
    }
    if all.is_empty() {
        if !arguments.quiet {
            terminal::note("Nothing is to be fetched: the model `demo` is built in.");
        }
        return Ok(());
    }
    let mut progress = DownloadProgress::new(arguments.printer());
    let folders = Catalog::of_user().fetch(&all, &mut progress)?;
    for (part, folder) in all.iter().zip(folders) {
        let place = match &part.reference.file {
            Some(file) => folder.join(file),
            None => folder,
        };
        if arguments.json {
            let name = part.reference.to_string();
            terminal::print_json(&json!({ "event": "pulled", "name": name, "place": place }));
        } else {
            terminal::print_path(&place);
        }
    }
    Ok(())
}

/// What is fetched for `name`: all parts of a preset, with the network that it upscales with, or what an id
/// names.
fn parts(name: &str, configuration: &Configuration) -> Result<Vec<Wanted>, Failure> {
    if name == DEMO {
        return Ok(Vec::new());
    }
    if !name.contains('/') {
        return Ok(wanted(&configuration.preset(name)?));
    }
    match reference(name) {
        Some(reference) => Ok(vec![Wanted {
            reference,
            kind: None,
        }]),
        None => Err(Failure::no_such_name(name)),
    }
}
