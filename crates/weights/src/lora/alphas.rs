//! Alphas that are stored outside of tensors: in the header under `lora_adapter_metadata`, one set of
//! settings a network, as diffusers writes them, or in `adapter_config.json` beside the file, as PEFT does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::ModelPart;
use super::peft_settings::{Factor, PeftSettings};
use crate::{Error, ModelFolder, Result};

/// The file names of PEFT for the weights of an adapter, and for the settings beside them.
const PEFT_WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
const PEFT_SETTINGS: &str = "adapter_config.json";

/// The path of the settings of the LoRA file at `path`, if the file has a PEFT name. The alphas of such a
/// file are only in its settings.
pub fn adapter_settings(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    PEFT_WEIGHTS
        .contains(&name)
        .then(|| path.with_file_name(PEFT_SETTINGS))
}

/// The settings of a file, by network.
#[derive(Debug, Default)]
pub(super) enum Alphas {
    /// The file has no settings.
    #[default]
    Unknown,
    /// Settings of each network, by its name in diffusers.
    ByNetwork(BTreeMap<String, PeftSettings>),
    /// Settings of all networks.
    OfAll(PeftSettings),
}

impl Alphas {
    /// The settings in the `metadata` of a header. Settings that cannot be parsed count as missing, because
    /// they are not part of the format.
    pub(super) fn read(metadata: &BTreeMap<String, String>) -> Self {
        let text = metadata.get("lora_adapter_metadata");
        match text.and_then(|text| serde_json::from_str::<Networks>(text).ok()) {
            Some(Networks(networks)) => Self::ByNetwork(networks),
            None => Self::Unknown,
        }
    }

    /// The settings in the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let folder = ModelFolder::on_disk(path.parent().unwrap_or(Path::new("")));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self::OfAll(folder.json(&name)?))
    }

    /// Refuses settings of `file` that ask for another method than LoRA and DoRA. `place` is their location for
    /// messages.
    pub(super) fn check(&self, file: &Path, place: &str) -> Result<()> {
        let settings: Vec<&PeftSettings> = match self {
            Self::Unknown => Vec::new(),
            Self::ByNetwork(networks) => networks.values().collect(),
            Self::OfAll(settings) => vec![settings],
        };
        match settings.iter().find_map(|settings| settings.unsupported()) {
            Some(unsupported) => Err(Error::UnsupportedLoraSetting {
                file: file.to_owned(),
                place: place.to_owned(),
                setting: unsupported.setting.as_str().into(),
                value: unsupported.value.as_str().into(),
            }),
            None => Ok(()),
        }
    }

    /// The factor of the layer `module` of `part`, if the settings have it.
    pub(super) fn factor(&self, part: Option<ModelPart>, module: &str) -> Option<Factor> {
        self.settings(part).map(|settings| settings.factor(module))
    }

    /// Whether the settings of `part` ask for DoRA.
    pub(super) fn is_dora(&self, part: Option<ModelPart>) -> bool {
        self.settings(part).is_some_and(PeftSettings::is_dora)
    }

    fn settings(&self, part: Option<ModelPart>) -> Option<&PeftSettings> {
        match self {
            Self::Unknown => None,
            Self::OfAll(settings) => Some(settings),
            Self::ByNetwork(networks) => {
                let names: &[&str] = match part? {
                    ModelPart::Denoiser => &["unet", "transformer"],
                    ModelPart::TextEncoder => &["text_encoder"],
                    ModelPart::TextEncoder2 => &["text_encoder_2"],
                    ModelPart::TextEncoder3 => &["text_encoder_3"],
                };
                names.iter().find_map(|name| networks.get(*name))
            }
        }
    }
}

/// Settings whose names begin with the name of a network: `unet.lora_alpha`.
struct Networks(BTreeMap<String, PeftSettings>);

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Networks;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the settings of adapters by network")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Networks, M::Error> {
                let mut networks: BTreeMap<String, PeftSettings> = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.split_once('.') {
                        Some((network, setting)) => {
                            let settings = networks.entry(network.to_owned()).or_default();
                            settings.take(setting, &mut map)?;
                        }
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Networks(networks))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_alphas_by_network_and_layer() {
        let read = |text: &str| {
            Alphas::read(&BTreeMap::from([(
                "lora_adapter_metadata".to_owned(),
                text.to_owned(),
            )]))
        };
        let alphas = read(
            r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}, "unet.use_rslora": true,
                "text_encoder.lora_alpha": 6.0, "text_encoder.peft_type": null}"#,
        );
        let factor = |part, module: &str| alphas.factor(Some(part), module);
        let rooted = |alpha| Some(Factor { alpha, root: true });
        assert_eq!(factor(ModelPart::Denoiser, "a.attn1.to_k"), rooted(8.0));
        assert_eq!(factor(ModelPart::Denoiser, "a.attn1.to_q"), rooted(2.0));
        assert_eq!(factor(ModelPart::Denoiser, "a.xattn1.to_q"), rooted(8.0));
        let plain = factor(ModelPart::TextEncoder, "a").unwrap();
        assert_eq!((plain.of(3), rooted(8.0).unwrap().of(16)), (2.0, 2.0));
        assert_eq!(factor(ModelPart::TextEncoder2, "a"), None);
        let file = Path::new("it");
        assert!(alphas.check(file, "here").is_ok());
        assert!(read(r#"{"unet.use_qalora": true}"#).check(file, "here").is_err());
        let dora = read(r#"{"unet.use_dora": true}"#);
        assert!(dora.check(file, "here").is_ok());
        assert!(dora.is_dora(Some(ModelPart::Denoiser)) && !dora.is_dora(Some(ModelPart::TextEncoder)));
        assert_eq!(read("[").factor(Some(ModelPart::Denoiser), "a"), None);
    }

    #[test]
    fn only_what_peft_names_has_settings_beside_it() {
        let beside = |path: &str| adapter_settings(Path::new(path));
        assert_eq!(
            beside("a/adapter_model.safetensors"),
            Some(PathBuf::from("a/adapter_config.json"))
        );
        assert_eq!(beside("a/pytorch_lora_weights.safetensors"), None);
    }
}
