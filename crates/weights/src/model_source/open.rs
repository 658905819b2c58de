//! Opens the files that the user names as a source of a model's networks.

use std::path::Path;
use std::sync::Arc;

use super::assembled::AssembledModel;
use super::model_files::{Base, ModelFiles};
use super::{ModelFolder, ModelSource};
use crate::Result;

impl ModelFiles {
    /// Opens the model. Of weights nothing but headers is read.
    ///
    /// # Errors
    /// A file is missing or damaged, holds something else than it should, or a network is nowhere.
    pub fn open(&self) -> Result<Arc<dyn ModelSource>> {
        match &self.base {
            Base::File(file) => Ok(Arc::new(AssembledModel::of_file(file, self)?)),
            Base::Folder(folder) if self.changes_nothing() => Ok(Arc::new(folder.clone())),
            Base::Folder(folder) => Ok(Arc::new(AssembledModel::of_folder(folder, self)?)),
        }
    }
}

/// Opens the ControlNet at `path`, a file or a folder with a single network. The result are its source and
/// its component there.
///
/// # Errors
/// A file is missing or damaged, or holds something else.
pub fn open_controlnet(path: &Path) -> Result<(Arc<dyn ModelSource>, String)> {
    const COMPONENT: &str = "controlnet";
    if path.is_file() {
        let model = AssembledModel::of_controlnet(path, COMPONENT)?;
        return Ok((Arc::new(model), COMPONENT.to_owned()));
    }
    let (folder, component) = ModelFolder::around(path);
    Ok((Arc::new(folder), component))
}
