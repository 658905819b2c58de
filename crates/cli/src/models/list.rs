//! `generate models list`: the cached repositories, what each can be used as, and the presets that use it.

use sd_catalog::presets::ALL;
use sd_catalog::{Catalog, Configuration, Settings, is_complete_folder, wanted};
use sd_hub::{CachedRepository, CachedRevision, MAIN};
use sd_pipeline::bundle::{Bundle, Kind};
use sd_pipeline::{Bytes, ModelFiles};
use serde_json::{Value, json};

use crate::arguments::ModelsArguments;
use crate::hint::Failure;
use crate::terminal;

/// One repository of the list.
struct Row {
    id: String,
    kind: String,
    bytes: Bytes,
    presets: Vec<String>,
    revisions: Vec<String>,
}

pub(super) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    let catalog = Catalog::of_user();
    let cache = catalog.cache();
    let repositories = cache.repositories();
    let rows: Vec<Row> = repositories
        .iter()
        .map(|repository| Row::of(repository, &configuration))
        .collect();
    let total = Bytes(rows.iter().map(|row| row.bytes.0).sum());
    if arguments.json {
        let models: Vec<Value> = rows.iter().map(Row::object).collect();
        let event = json!({ "event": "models", "cache": cache.root(), "bytes": total, "models": models });
        terminal::print_json(&event);
        return Ok(());
    }
    terminal::print(&table(&rows));
    if !arguments.quiet {
        let root = cache.root().display();
        terminal::note(&match rows.len() {
            0 => format!("There is no model in {root}. `generate models pull fast` downloads one."),
            count => format!("{count} in {root}, {total}"),
        });
    }
    Ok(())
}

impl Row {
    fn of(repository: &CachedRepository, configuration: &Configuration) -> Self {
        let id = repository.id.to_string();
        let is_main = |revision: &&CachedRevision| revision.names.iter().any(|name| name == MAIN);
        let revisions = &repository.revisions;
        let shown = revisions.iter().find(is_main).or(revisions.first());
        Self {
            kind: shown.map_or_else(|| "incomplete".to_owned(), kind),
            bytes: Bytes(repository.bytes),
            presets: presets_with(&id, configuration),
            revisions: revisions
                .iter()
                .map(|revision| revision.names.first().unwrap_or(&revision.commit).clone())
                .collect(),
            id,
        }
    }

    fn object(&self) -> Value {
        json!({
            "id": self.id,
            "kind": self.kind,
            "bytes": self.bytes,
            "presets": self.presets,
            "revisions": self.revisions,
        })
    }
}

/// What a revision can be used as. The family of a model is recognised by its configuration and the headers
/// of its tensors.
fn kind(revision: &CachedRevision) -> String {
    let paths = revision.paths();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let kind = Kind::of(&paths);
    let known = match kind {
        None => "unknown",
        Some(_) if !is_complete_folder(&revision.folder, kind) => "incomplete",
        Some(Kind::Model) => match Bundle::open(&ModelFiles::at(&revision.folder)) {
            Ok(bundle) => bundle.family.title(),
            Err(_) => "cannot be used",
        },
        Some(kind) => kind.title(),
    };
    known.to_owned()
}

/// The built-in presets and the user's presets that use the repository `id`.
fn presets_with(id: &str, configuration: &Configuration) -> Vec<String> {
    let uses = |settings: &Settings| {
        let mut parts = wanted(settings).into_iter();
        parts.any(|part| part.reference.id.as_str() == id)
    };
    let built_in = ALL
        .iter()
        .filter(|preset| uses(&Settings::from(*preset)))
        .map(|preset| preset.name.to_owned());
    let own = configuration.presets.iter();
    let own = own
        .filter(|(_, settings)| uses(settings))
        .map(|(name, _)| name.clone());
    built_in.chain(own).collect()
}

/// The rows as a table with a heading.
fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading = ["ID", "KIND", "SIZE", "PRESETS"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let presets = row.presets.join(", ");
        [row.id.clone(), row.kind.clone(), row.bytes.to_string(), presets]
    });
    let lines: Vec<[String; 4]> = std::iter::once(heading).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let [first, second, third] = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    let line = |[id, kind, size, presets]: &[String; 4]| {
        let line = format!("{id:first$}  {kind:second$}  {size:>third$}  {presets}");
        format!("{}\n", line.trim_end())
    };
    lines.iter().map(line).collect()
}
