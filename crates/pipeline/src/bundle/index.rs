//! What `model_index.json` says of a model as a whole.

use std::collections::BTreeMap;

use sd_weights::ModelFolder;
use serde::Deserialize;

use crate::Result;

/// The parts of a model, and how its texts are read.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Index {
    /// Whether the vectors of a negative prompt that was left out are zeros, rather than those of an empty text.
    #[serde(default)]
    pub(super) force_zeros_for_empty_prompt: bool,
    /// Each part's library and class, null where it is left out, among other settings. A model without an index has what
    /// lies in its folder.
    #[serde(flatten)]
    entries: Option<BTreeMap<String, serde_json::Value>>,
}

impl Index {
    pub(super) const FILE: &str = "model_index.json";

    /// Reads the index of the model in `folder`, if there is one.
    pub(super) fn open(folder: &ModelFolder) -> Result<Self> {
        if folder.contains(Self::FILE) {
            Ok(folder.json(Self::FILE)?)
        } else {
            Ok(Self::default())
        }
    }

    /// Whether the model whose index this is has `component`. `is_there` says of a path whether there is a file.
    pub(super) fn has(&self, component: &str, is_there: impl Fn(&str) -> bool) -> bool {
        match &self.entries {
            Some(entries) => {
                let class = entries.get(component).and_then(|entry| entry.get(1));
                class.is_some_and(|class| !class.is_null())
            }
            None => is_there(&format!("{component}/config.json")),
        }
    }
}
