//! The rows of `generate models list`: a cached repository, or a file of another program, with what its headers
//! show.

use std::fs;
use std::path::Path;

use sd_catalog::presets::ALL;
use sd_catalog::{Catalog, Configuration, KeptFile, ModelsPath, Settings, is_complete_folder, wanted};
use sd_hub::{CachedRepository, CachedRevision, MAIN};
use sd_pipeline::bundle::{FileKind, Kind};
use sd_pipeline::{Budgets, Bytes, Summaries, Summary};
use serde_json::{Value, json};

use crate::hint::Failure;

/// The longest reason why a file cannot be used, in characters.
const LONGEST_REASON: usize = 100;

/// What is known of a repository or a file.
pub(super) struct Row {
    /// The name, as options take it.
    pub(super) name: String,
    /// What it can be used as, for a person.
    pub(super) kind: String,
    data_type: Option<String>,
    pub(super) bytes: Bytes,
    budgets: Option<Budgets>,
    /// Why it cannot be used.
    problem: Option<String>,
    /// The presets that use it.
    presets: Vec<String>,
    /// What only repositories or only files have, in JSON.
    more: Value,
}

impl Row {
    /// The row of a cached repository.
    pub(super) fn of_repository(
        repository: &CachedRepository,
        catalog: &Catalog,
        configuration: &Configuration,
        summaries: &mut Summaries,
    ) -> Self {
        let id = repository.id.to_string();
        let is_main = |revision: &&CachedRevision| revision.names.iter().any(|name| name == MAIN);
        let revisions = &repository.revisions;
        let shown = revisions.iter().find(is_main).or(revisions.first());
        let (kind, summary) = match shown {
            Some(revision) => of_revision(revision, catalog, summaries),
            None => ("incomplete".to_owned(), None),
        };
        let names: Vec<String> = revisions
            .iter()
            .map(|revision| revision.names.first().unwrap_or(&revision.commit).clone())
            .collect();
        let (summary, problem) = match summary {
            Some(Ok(summary)) => (Some(summary), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        Self {
            kind,
            data_type: summary.as_ref().and_then(data_type),
            bytes: Bytes(repository.bytes),
            budgets: summary.as_ref().and_then(|summary| summary.budgets),
            problem,
            presets: presets_with(&id, configuration),
            more: json!({ "id": id, "revisions": names }),
            name: id,
        }
    }

    /// The row of a file below `models_path`.
    pub(super) fn of_file(file: &KeptFile, catalog: &Catalog, summaries: &mut Summaries) -> Self {
        let models_path = catalog.models_path();
        let summary = summaries
            .file(&file.path, models_path.roots())
            .map_err(|error| phrase(error.into(), &file.path));
        let kind = file.kind.or(summary.as_ref().ok().map(|summary| summary.kind));
        let problem = match (&summary, file.kind) {
            (Err(reason), _) => Some(reason.clone()),
            (Ok(summary), Some(own)) if own != summary.kind => Some(format!(
                "holds {}, and its folder is for {}s",
                with_article(summary.kind),
                own.title()
            )),
            (Ok(_), _) => None,
        };
        let summary = summary.ok();
        let family = summary.as_ref().and_then(|summary| summary.family.clone());
        Self {
            name: models_path.name_of(kind.unwrap_or(FileKind::Model), file),
            kind: kind.map_or_else(
                || "unknown".to_owned(),
                |kind| shown_kind(kind, family.as_deref()),
            ),
            data_type: summary.as_ref().and_then(data_type),
            bytes: Bytes(bytes_at(&file.path)),
            budgets: summary.as_ref().and_then(|summary| summary.budgets),
            problem,
            presets: Vec::new(),
            more: json!({
                "path": file.path,
                "models_path": file.root,
                "kind": kind.map(FileKind::title),
                "family": family,
            }),
        }
    }

    /// The row in JSON.
    pub(super) fn object(&self) -> Value {
        let mut object = json!({
            "name": self.name,
            "kind": self.kind,
            "data_type": self.data_type,
            "bytes": self.bytes,
            "smallest_budget": self.budgets.map(|budgets| budgets.smallest),
            "comfortable_budget": self.budgets.map(|budgets| budgets.resident),
            "problem": self.problem,
            "presets": self.presets,
        });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, &self.more) {
            object.extend(more.clone());
        }
        object
    }

    /// The cells of the row in the table.
    fn cells(&self) -> [String; 7] {
        let budget = |of: fn(&Budgets) -> Bytes| {
            self.budgets
                .as_ref()
                .map_or_else(String::new, |budgets| of(budgets).to_string())
        };
        [
            self.name.clone(),
            self.kind.clone(),
            self.data_type.clone().unwrap_or_default(),
            self.bytes.to_string(),
            budget(|budgets| budgets.smallest),
            budget(|budgets| budgets.resident),
            self.problem.clone().unwrap_or_else(|| self.presets.join(", ")),
        ]
    }
}

/// The rows as a table with a heading.
pub(super) fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading = [
        "NAME",
        "KIND",
        "TYPE",
        "SIZE",
        "SMALLEST",
        "COMFORTABLE",
        "PRESETS",
    ]
    .map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(heading)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let [name, kind, data_type, size, smallest, comfortable] =
        [0, 1, 2, 3, 4, 5].map(|column| width(column).unwrap_or_default());
    let line = |cells: &[String; 7]| {
        let [a, b, c, d, e, f, g] = cells;
        let line = format!(
            "{a:name$}  {b:kind$}  {c:data_type$}  {d:>size$}  {e:>smallest$}  {f:>comfortable$}  {g}"
        );
        format!("{}\n", line.trim_end())
    };
    lines.iter().map(line).collect()
}

/// What a revision can be used as, and its summary or why it cannot be used. The family of a model is recognised
/// by its configuration and the headers of its tensors.
fn of_revision(
    revision: &CachedRevision,
    catalog: &Catalog,
    summaries: &mut Summaries,
) -> (String, Option<Result<Summary, String>>) {
    let paths = revision.paths();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let kind = match Kind::of(&paths) {
        None => return ("unknown".to_owned(), None),
        kind if !is_complete_folder(&revision.folder, kind) => return ("incomplete".to_owned(), None),
        Some(kind) => kind,
    };
    let summary = match kind {
        Kind::Model => Some(summaries.model(&catalog.model_at(revision.folder.clone()))),
        Kind::ControlNet => Some(summaries.file(&revision.folder, &[])),
        Kind::Lora | Kind::Upscaler => {
            let mut used = paths
                .iter()
                .filter(|path| path.ends_with(".safetensors") || path.ends_with(".pth"));
            // Of several files each can be used.
            match (used.next(), used.next()) {
                (Some(path), None) => Some(summaries.file(&sd_files::below(&revision.folder, path), &[])),
                _ => None,
            }
        }
    };
    let summary = summary.map(|summary| summary.map_err(|error| phrase(error.into(), &revision.folder)));
    let shown = match (&summary, kind) {
        (Some(Err(_)), _) => "cannot be used".to_owned(),
        (Some(Ok(summary)), Kind::Model) => shown_kind(summary.kind, summary.family.as_deref()),
        (_, kind) => kind.title().to_owned(),
    };
    (shown, summary)
}

/// A kind with its family, for a person.
fn shown_kind(kind: FileKind, family: Option<&str>) -> String {
    match (kind, family) {
        (FileKind::Model, Some(family)) => family.to_owned(),
        (FileKind::Lora | FileKind::ControlNet, Some(family)) => format!("{} for {family}", kind.title()),
        (_, Some(family)) => format!("{} {family}", kind.title()),
        (_, None) => kind.title().to_owned(),
    }
}

fn with_article(kind: FileKind) -> String {
    let article = match kind {
        FileKind::Upscaler | FileKind::Embedding => "an",
        _ => "a",
    };
    format!("{article} {}", kind.title())
}

fn data_type(summary: &Summary) -> Option<String> {
    summary
        .data_type
        .map(|data_type| data_type.to_string().to_lowercase())
}

/// The message of `failure` as a short phrase on the file at `path`.
fn phrase(failure: Failure, path: &Path) -> String {
    let message = failure.message();
    let path = path.display().to_string();
    let own = format!("`{path}` ");
    let rest = message.strip_prefix(own.as_str()).unwrap_or(message);
    // The tensor that tells is a detail.
    let rest = rest.split(" (tensor `").next().unwrap_or(rest);
    let rest = rest.replace(&format!("{path}/"), "").replace(&path, "it");
    match rest.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &rest[..end]),
        None => rest,
    }
}

/// The bytes of the file at `path`, or of the files of a folder.
fn bytes_at(path: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    if !path.is_dir() {
        return length(path);
    }
    let below = sd_hub::paths_below(path);
    below.iter().map(|found| length(&path.join(found))).sum()
}

/// The built-in presets and the user's presets that use the repository `id`.
fn presets_with(id: &str, configuration: &Configuration) -> Vec<String> {
    let nothing_kept = ModelsPath::default();
    let uses = |settings: &Settings| {
        let parts = wanted(settings, &nothing_kept).unwrap_or_default();
        parts.iter().any(|part| part.reference.id.as_str() == id)
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
