//! `model_index.json`, which describes a model as a whole.

use std::collections::BTreeMap;

use sd_weights::{MODEL_INDEX, ModelSource};
use serde::{Deserialize, Deserializer};

use crate::Result;

/// The components of a model, and the settings of its pipeline.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(expecting = "settings by their names")]
pub(crate) struct ModelIndex {
    /// The pipeline class, unless it is a custom one.
    #[serde(rename = "_class_name", default)]
    class_name: serde_json::Value,
    /// `force_zeros_for_empty_prompt`: whether an omitted negative prompt is encoded as zeros rather than as
    /// an empty prompt, in pipelines that have the setting.
    #[serde(default, deserialize_with = "said")]
    force_zeros_for_empty_prompt: Option<bool>,
    /// The library and class of each component, null where it is left out, among other settings. A model
    /// without an index has the components of its folder.
    #[serde(flatten)]
    entries: Option<BTreeMap<String, serde_json::Value>>,
}

impl ModelIndex {
    pub(crate) const FILE: &str = "model_index.json";

    /// Reads the index of the model, if there is one.
    pub(crate) fn open(source: &dyn ModelSource) -> Result<Self> {
        if source.has_config(MODEL_INDEX) {
            Ok(source.config(MODEL_INDEX)?.json()?)
        } else {
            Ok(Self::default())
        }
    }

    /// Whether an omitted negative prompt is encoded as zeros, in pipelines that have the setting. The
    /// default is true.
    #[doc(alias = "force_zeros_for_empty_prompt")]
    pub(crate) fn zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt.unwrap_or(true)
    }

    /// Whether the model uses the pipeline for latent consistency models.
    pub(crate) fn is_latent_consistency(&self) -> bool {
        let class = self.class_name.as_str().unwrap_or_default();
        class.starts_with("LatentConsistencyModel")
    }

    /// The class of `component`, if the index has one.
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

/// A setting that is present. Null is false, as in Python.
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
