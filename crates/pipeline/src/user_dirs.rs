//! The directories that a run may write to beside its output: states of runs, the prompt cache.

use std::path::PathBuf;

/// The directories that a run may write to beside its output. By default none: then it cannot be resumed and has no prompt cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDirs {
    /// Below it the states of runs are kept, so that an interrupted one can be resumed.
    pub state: Option<PathBuf>,
    /// Below it results are kept that can be computed again. Safe to delete at any moment.
    pub cache: Option<PathBuf>,
}

impl UserDirs {
    /// The folder of the states of runs.
    pub fn runs(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join("runs"))
    }

    /// The folder of the results of text encoders.
    pub fn prompts(&self) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join("prompts"))
    }
}
