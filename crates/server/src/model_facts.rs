//! [`ModelFacts`]: what clients are told of a model beside its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use sd_pipeline::ModelFiles;
use sd_pipeline::bundle::Bundle;

use crate::lock::lock;

/// What the headers of a model's files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelFacts {
    /// Its family, such as "Stable Diffusion XL".
    pub(crate) family: &'static str,
    /// Bytes of its weights.
    pub(crate) bytes: u64,
}

/// The facts of models by their paths. Reading the headers of a model takes milliseconds.
#[derive(Debug, Default)]
pub(crate) struct ModelFactsCache(Mutex<BTreeMap<PathBuf, Known>>);

/// The facts of a model when it was changed last, or that it cannot be used.
#[derive(Debug)]
struct Known {
    changed: Option<SystemTime>,
    facts: Option<ModelFacts>,
}

impl ModelFactsCache {
    /// The facts of the model of `files`; `None` if it cannot be used.
    pub(crate) fn of(&self, files: &ModelFiles) -> Option<ModelFacts> {
        let path = files.path();
        let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let known = lock(&self.0);
        if let Some(known) = known.get(path).filter(|known| known.changed == changed) {
            return known.facts;
        }
        drop(known);
        let facts = facts(files);
        lock(&self.0).insert(path.to_owned(), Known { changed, facts });
        facts
    }
}

fn facts(files: &ModelFiles) -> Option<ModelFacts> {
    let read = Bundle::open(files).and_then(|bundle| {
        Ok(ModelFacts {
            family: bundle.family.title(),
            bytes: bundle.weight_bytes()?,
        })
    });
    read.inspect_err(|error| tracing::debug!("`{}` cannot be used: {error}", files.path().display()))
        .ok()
}
