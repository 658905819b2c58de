//! The models of interrupted runs.

use std::path::Path;

use sd_pipeline::bundle::Kind;
use sd_pipeline::{ModelChoice, ModelFiles, Recommended};

use crate::demo;
use crate::error::{Error, Result};

/// The model that an interrupted run names `name`, in `folder`, or the built-in one where it names no folder.
///
/// # Errors
/// It does not exist any more.
pub fn model_of_run(name: &str, folder: Option<&Path>) -> Result<ModelChoice> {
    match folder {
        None => Ok(demo::model()),
        Some(folder) if !folder.exists() => Err(Error::NothingAt {
            kind: Kind::Model,
            name: folder.to_string_lossy().into_owned(),
            similar: None,
        }),
        Some(folder) => Ok(ModelChoice {
            name: name.to_owned(),
            files: ModelFiles::at(folder),
            recommended: Recommended::default(),
        }),
    }
}
