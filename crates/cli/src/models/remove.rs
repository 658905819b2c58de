//! `generate models rm`: removes repositories from the cache.

use sd_catalog::{Catalog, Configuration};
use sd_hub::Reference;
use sd_pipeline::Bytes;
use serde_json::json;

use crate::arguments::ModelsArguments;
use crate::hint::Failure;
use crate::terminal;

pub(super) fn run(ids: &[String], arguments: &ModelsArguments) -> Result<(), Failure> {
    let catalog = Catalog::new(&Configuration::default());
    for id in ids {
        // The id is not resolved: a repository that is cached under an old id is removed under that id.
        let reference: Reference = match id.parse() {
            Ok(reference) => reference,
            Err(_) => return Err(Failure::no_such_name(id)),
        };
        if reference.file.is_some() {
            return Err(Failure::no_such_name(id));
        }
        let removed = catalog.cache().remove(&reference)?;
        let freed = Bytes(removed.bytes);
        if arguments.json {
            let event = json!({ "event": "removed", "id": id, "bytes": freed, "stays": removed.stays });
            terminal::print_json(event);
        } else if !arguments.quiet {
            let stays = match removed.stays.as_slice() {
                [] => String::new(),
                stays => format!("; the revisions {} stay", stays.join(", ")),
            };
            terminal::note(&format!("removed {id}, freed {freed}{stays}"));
        }
    }
    Ok(())
}
