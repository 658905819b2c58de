//! `generate models pull`: fetching what presets need, or what ids name.

use serde_json::json;

use crate::arguments::ModelsArguments;
use crate::configuration::Configuration;
use crate::fetching::{Wanted, fetch};
use crate::hint::Failure;
use crate::{demo, fetch_missing, local_models, presets, terminal, upscaler};

pub(super) fn run(names: &[String], arguments: &ModelsArguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for name in names {
        for part in parts(name, &configuration)? {
            if !wanted.contains(&part) {
                wanted.push(part);
            }
        }
    }
    if wanted.is_empty() {
        if !arguments.quiet {
            terminal::note("Nothing is to be fetched: the model `demo` is built in.");
        }
        return Ok(());
    }
    let places = fetch(&wanted, arguments.printer())?;
    for (part, place) in wanted.iter().zip(places) {
        let place = match &part.reference.file {
            Some(file) => place.join(file),
            None => place,
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

/// What `name` stands for: all parts of a preset, with the network that its pictures are made larger with, or what an id
/// names.
fn parts(name: &str, configuration: &Configuration) -> Result<Vec<Wanted>, Failure> {
    if name == demo::NAME {
        return Ok(Vec::new());
    }
    if !name.contains('/') {
        let settings = presets::of_preset(name, configuration)?;
        let enlarges = settings.upscale.filter(|_| settings.upscaler.is_none());
        let known = enlarges.and_then(upscaler::known);
        let known = known.and_then(|known| local_models::reference(known.name));
        let mut parts = fetch_missing::named(&settings, "");
        parts.extend(known.map(Wanted::all_of));
        return Ok(parts);
    }
    match local_models::reference(name) {
        Some(reference) => Ok(vec![Wanted::all_of(reference)]),
        None => Err(Failure::no_such_name(name)),
    }
}
