//! `generate models list`: the cached repositories and the files of other programs, what each can be used as, and
//! the memory budgets of models.

use std::path::Path;

use sd_catalog::{Catalog, Configuration};
use sd_pipeline::{Bytes, Summaries};
use serde_json::{Value, json};

use super::row::{Row, table};
use crate::arguments::ModelsArguments;
use crate::hint::Failure;
use crate::terminal;

pub(super) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    let catalog = Catalog::new(&configuration);
    let (cache, models_path) = (catalog.cache(), catalog.models_path());
    for root in models_path.missing_roots() {
        let message = format!("{} of models_path is no folder", root.display());
        if arguments.json {
            terminal::print_json(json!({ "event": "warning", "message": message }));
        } else {
            arguments.printer().warn(&message);
        }
    }
    let defaults = &configuration.defaults;
    let mut summaries = Summaries::new(
        defaults.device.clone().unwrap_or_default().first(),
        defaults.dtype.unwrap_or_default(),
    );
    let repositories = cache.repositories();
    let mut rows: Vec<Row> = repositories
        .iter()
        .map(|repository| Row::of_repository(repository, &catalog, &configuration, &mut summaries))
        .collect();
    let cached = rows.len();
    let files = models_path.files();
    rows.extend(
        files
            .iter()
            .map(|file| Row::of_file(file, &catalog, &mut summaries)),
    );
    let total = |rows: &[Row]| Bytes(rows.iter().map(|row| row.bytes.0).sum());
    if arguments.json {
        let objects = |rows: &[Row]| rows.iter().map(Row::object).collect::<Vec<Value>>();
        terminal::print_json(json!({
            "event": "models",
            "cache": cache.root(),
            "bytes": total(&rows[..cached]),
            "models": objects(&rows[..cached]),
            "models_path": models_path.roots(),
            "files": objects(&rows[cached..]),
        }));
        return Ok(());
    }
    terminal::print(&table(&rows));
    if arguments.quiet {
        return Ok(());
    }
    let count = |rows: &[Row], root: &Path| {
        if !rows.is_empty() {
            terminal::note(&format!("{} in {}, {}", rows.len(), root.display(), total(rows)));
        }
    };
    if rows.is_empty() {
        let root = cache.root().display();
        terminal::note(&format!(
            "There is no model in {root}. `generate models pull fast` downloads one."
        ));
    }
    count(&rows[..cached], cache.root());
    let mut first = cached;
    // The files are sorted by their roots.
    for same_root in files.chunk_by(|one, other| one.root == other.root) {
        let end = first + same_root.len();
        count(&rows[first..end], &same_root[0].root);
        first = end;
    }
    Ok(())
}
