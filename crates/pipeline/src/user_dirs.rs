//! The directories that a run may write to beside its output: run states and the prompt cache.

use std::path::PathBuf;

/// The directories that a run may write to beside its output. By default none: then it cannot be resumed and has no prompt cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDirs {
    /// The parent of run states, from which interrupted runs are resumed.
    pub state: Option<PathBuf>,
    /// The parent of caches. Safe to delete at any time.
    pub cache: Option<PathBuf>,
}

impl UserDirs {
    /// The folder of run states.
    pub fn runs(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join("runs"))
    }

    /// The folder of the devices' measured rates.
    pub(crate) fn rates(&self) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join("rates"))
    }

    /// The folder of the prompt cache.
    pub fn prompts(&self) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join("prompts"))
    }
}
