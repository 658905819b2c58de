//! What `model_index.json` says of a model as a whole.

use std::collections::BTreeMap;

use sd_weights::{MODEL_INDEX, ModelSource};
use serde::{Deserialize, Deserializer};

use crate::Result;

/// The parts of a model, and how its texts are read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(expecting = "settings by their names")]
pub(crate) struct ModelIndex {
    /// The pipeline, unless it is a custom one.
    #[serde(rename = "_class_name", default)]
    class_name: serde_json::Value,
    /// Whether the vectors of a negative prompt that was left out are zeros, rather than those of an empty text, in
    /// pipelines that know the setting.
    #[serde(default, deserialize_with = "said")]
    force_zeros_for_empty_prompt: Option<bool>,
    /// Each part's library and class, null where it is left out, among other settings. A model without an index has what
    /// lies in its folder.
    #[serde(flatten)]
    entries: Option<BTreeMap<String, serde_json::Value>>,
}

impl ModelIndex {
    pub(crate) const FILE: &str = "model_index.json";

    /// Reads the index of the model in `folder`, if there is one.
    pub(crate) fn open(source: &dyn ModelSource) -> Result<Self> {
        if source.has_config(MODEL_INDEX) {
            Ok(source.config(MODEL_INDEX)?.json()?)
        } else {
            Ok(Self::default())
        }
    }

    /// Whether the vectors of a missing negative prompt are zeros, for the pipelines that know the setting: they are where
    /// nothing is said.
    #[doc(alias = "force_zeros_for_empty_prompt")]
    pub(crate) fn zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt.unwrap_or(true)
    }

    /// Whether the model uses the pipeline for latent consistency models.
    pub(crate) fn is_latent_consistency(&self) -> bool {
        let class = self.class_name.as_str().unwrap_or_default();
        class.starts_with("LatentConsistencyModel")
    }

    /// The class of `component`, where it is said.
    pub(crate) fn class_of(&self, component: &str) -> Option<&str> {
        self.entries.as_ref()?.get(component)?.get(1)?.as_str()
    }

    /// Whether the model has `component`. Without an index the model has every component for which `has_config` holds.
    pub(crate) fn has(&self, component: &str, has_config: impl Fn(&str) -> bool) -> bool {
        match &self.entries {
            Some(entries) => {
                let class = entries.get(component).and_then(|entry| entry.get(1));
                class.is_some_and(|class| !class.is_null())
            }
            None => has_config(component),
        }
    }
}

/// A setting that is written down. Null is false to Python.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<bool>, D::Error> {
    Ok(Some(Option::<bool>::deserialize(deserializer)?.unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_the_default_for_an_empty_prompt() {
        for (text, said) in [
            ("{}", true),
            (r#"{"force_zeros_for_empty_prompt": true}"#, true),
            (r#"{"force_zeros_for_empty_prompt": false}"#, false),
            (r#"{"force_zeros_for_empty_prompt": null}"#, false),
        ] {
            let index: ModelIndex = serde_json::from_str(text).unwrap();
            assert_eq!(index.zeros_for_empty_prompt(), said, "{text}");
        }
        assert!(ModelIndex::default().zeros_for_empty_prompt());
    }
}
