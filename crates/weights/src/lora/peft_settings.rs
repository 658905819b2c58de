//! The settings of PEFT's `LoraConfig` that affect the scale of a LoRA, from `adapter_config.json` beside
//! `adapter_model.safetensors`, or from a header.

use std::fmt;
use std::marker::PhantomData;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The maximum size of a compiled pattern.
const MOST_PATTERN_BYTES: usize = 1 << 20;

/// The factor of the product of a layer: `alpha / rank`, or for rsLoRA `alpha / sqrt(rank)` (Kalajdzievski,
/// "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factor {
    pub(super) alpha: f32,
    pub(super) root: bool,
}

impl Factor {
    pub(super) fn of(self, rank: usize) -> f32 {
        let rank = rank as f32;
        self.alpha / if self.root { rank.sqrt() } else { rank }
    }
}

/// The settings of the adapter of one network.
#[derive(Debug)]
pub(super) struct PeftSettings {
    alpha: f32,
    /// The patterns in the order of the file. The first one that matches a layer counts.
    alpha_pattern: Vec<(Regex, f32)>,
    root: bool,
    is_dora: bool,
    unsupported: Option<Unsupported>,
}

/// A setting that asks for another method than LoRA and DoRA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsupported {
    /// The name.
    pub(super) setting: String,
    /// The value, as JSON.
    pub(super) value: String,
}

/// The default of PEFT.
const DEFAULT_ALPHA: f32 = 8.0;

/// Settings without effect on the update: the tensors show them, or they concern training alone.
const WITHOUT_EFFECT: [&str; 26] = [
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "monteclora_config",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "velora_config",
];

/// Initialisations that change the base weights too, so that the file alone does not determine the update.
const CHANGING_INITIALISATIONS: [&str; 4] = ["corda", "loftq", "olora", "pissa"];

impl PeftSettings {
    /// The factor of the layer `module`, whose name has dots.
    pub(super) fn factor(&self, module: &str) -> Factor {
        let own = self
            .alpha_pattern
            .iter()
            .find(|(pattern, _)| pattern.is_match(module));
        Factor {
            alpha: own.map_or(self.alpha, |(_, alpha)| *alpha),
            root: self.root,
        }
    }

    /// Whether the adapter is a DoRA.
    pub(super) fn is_dora(&self) -> bool {
        self.is_dora
    }

    /// The first setting that asks for another method than LoRA and DoRA.
    pub(super) fn unsupported(&self) -> Option<&Unsupported> {
        self.unsupported.as_ref()
    }
}

impl Default for PeftSettings {
    fn default() -> Self {
        Self {
            alpha: DEFAULT_ALPHA,
            alpha_pattern: Vec::new(),
            root: false,
            is_dora: false,
            unsupported: None,
        }
    }
}

impl PeftSettings {
    /// Reads the setting `name`, whose value is the next of `map`.
    pub(super) fn take<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "lora_alpha" => self.alpha = map.next_value::<Option<f32>>()?.unwrap_or(DEFAULT_ALPHA),
            "use_rslora" => self.root = map.next_value::<Option<bool>>()?.unwrap_or(false),
            "use_dora" => self.is_dora = map.next_value::<Option<bool>>()?.unwrap_or(false),
            "alpha_pattern" => {
                let patterns = map.next_value::<Option<Ordered<f32>>>()?;
                for (pattern, alpha) in patterns.map_or_else(Vec::new, |patterns| patterns.0) {
                    // PEFT (`get_pattern_key`) matches whole components at the end of the name.
                    let whole = format!(r"^(?:.*\.)?(?:{pattern})$");
                    let compiled = RegexBuilder::new(&whole).size_limit(MOST_PATTERN_BYTES).build();
                    let compiled = compiled.map_err(|_| {
                        de::Error::custom(format!(
                            "the pattern `{pattern}` of its alpha_pattern cannot be followed"
                        ))
                    })?;
                    self.alpha_pattern.push((compiled, alpha));
                }
            }
            _ => {
                let value: Value = map.next_value()?;
                if !is_followed(name, &value) && self.unsupported.is_none() {
                    self.unsupported = Some(Unsupported {
                        setting: name.to_owned(),
                        value: value.to_string(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether `value` of the setting `name` is that of LoRA.
fn is_followed(name: &str, value: &Value) -> bool {
    let is_unset = match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Number(_) => false,
    };
    match name {
        _ if is_unset || WITHOUT_EFFECT.contains(&name) => true,
        "peft_type" => value
            .as_str()
            .is_some_and(|name| name.eq_ignore_ascii_case("lora")),
        "bias" => value == "none",
        "init_lora_weights" => value.as_str().is_none_or(|name| {
            let name = name.to_ascii_lowercase();
            !CHANGING_INITIALISATIONS
                .iter()
                .any(|changing| name.starts_with(changing))
        }),
        _ => false,
    }
}

impl<'de> Deserialize<'de> for PeftSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Settings;

        impl<'de> Visitor<'de> for Settings {
            type Value = PeftSettings;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the settings of an adapter")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<PeftSettings, M::Error> {
                let mut settings = PeftSettings::default();
                while let Some(name) = map.next_key::<String>()? {
                    settings.take(&name, &mut map)?;
                }
                Ok(settings)
            }
        }

        deserializer.deserialize_map(Settings)
    }
}

/// The entries of an object, in the order of the text.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Ordered<T>, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PeftSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_first_matching_pattern_gives_the_alpha() {
        let settings = read(
            r#"{"lora_alpha": 16, "alpha_pattern": {"attn1.to_q": 2, "blocks\\.[01]\\..*to_k": 3, "^to_v": 4, "to_q": 5}}"#,
        );
        let alpha = |module: &str| settings.factor(module).alpha;
        assert_eq!(alpha("blocks.0.attn1.to_q"), 2.0);
        assert_eq!(alpha("blocks.0.xattn1.to_q"), 5.0);
        assert_eq!(alpha("blocks.1.attn2.to_k"), 3.0);
        assert_eq!(alpha("blocks.2.attn2.to_k"), 16.0);
        assert_eq!(alpha("to_v"), 4.0);
        assert_eq!(alpha("a.to_v"), 16.0);
        assert_eq!(read("{}").factor("a").alpha, 8.0);
    }

    #[test]
    fn other_methods_are_refused_by_name() {
        for (text, setting) in [
            (r#"{"use_qalora": true}"#, "use_qalora"),
            (r#"{"peft_type": "LOHA"}"#, "peft_type"),
            (r#"{"bias": "all"}"#, "bias"),
            (r#"{"modules_to_save": ["conv_in"]}"#, "modules_to_save"),
            (r#"{"init_lora_weights": "pissa_niter_16"}"#, "init_lora_weights"),
            (r#"{"layer_replication": [[0, 2]]}"#, "layer_replication"),
            (r#"{"setting_of_tomorrow": 3}"#, "setting_of_tomorrow"),
        ] {
            let settings = read(text);
            assert_eq!(settings.unsupported().unwrap().setting, setting, "{text}");
        }
        let plain = read(
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 4, "bias": "none", "use_dora": false, "modules_to_save": null,
                "init_lora_weights": "gaussian", "target_modules": ["to_q"], "setting_of_tomorrow": null, "lora_dropout": 0.1}"#,
        );
        assert_eq!((plain.unsupported(), plain.is_dora()), (None, false));
        let dora = read(r#"{"peft_type": "LORA", "use_dora": true}"#);
        assert_eq!((dora.unsupported(), dora.is_dora()), (None, true));
        for wrong in [
            "[]",
            r#"{"lora_alpha": "much"}"#,
            r#"{"alpha_pattern": {"(": 1}}"#,
        ] {
            assert!(serde_json::from_str::<PeftSettings>(wrong).is_err(), "{wrong}");
        }
    }
}
