//! The alphas that a file tells in its header instead of in tensors, as diffusers writes them: the settings of PEFT's
//! `LoraConfig`, one set a network, under `lora_adapter_metadata`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ModelPart;

/// What a layer's product is multiplied with: `alpha / rank`, or for rsLoRA `alpha / sqrt(rank)` (Kalajdzievski, "A Rank
/// Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023).
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

/// The settings of each network that the header tells.
#[derive(Debug, Default)]
pub(super) struct Alphas(BTreeMap<String, Settings>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    lora_alpha: Option<f32>,
    alpha_pattern: BTreeMap<String, f32>,
    use_rslora: bool,
    use_dora: bool,
}

impl Alphas {
    /// The settings in a header's `metadata`. What cannot be understood is as good as missing: they are not part of the
    /// format.
    pub(super) fn read(metadata: &BTreeMap<String, String>) -> Self {
        let Some(text) = metadata.get("lora_adapter_metadata") else {
            return Self::default();
        };
        let Ok(entries) = serde_json::from_str::<BTreeMap<String, Value>>(text) else {
            return Self::default();
        };
        let mut networks: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
        for (name, value) in entries {
            if let Some((network, setting)) = name.split_once('.') {
                let settings = networks.entry(network.to_owned()).or_default();
                settings.insert(setting.to_owned(), value);
            }
        }
        let understood = networks.into_iter().filter_map(|(network, settings)| {
            Some((network, serde_json::from_value(Value::Object(settings)).ok()?))
        });
        Self(understood.collect())
    }

    /// Whether a network's settings say that it is a DoRA.
    pub(super) fn any_dora(&self) -> bool {
        self.0.values().any(|settings| settings.use_dora)
    }

    /// The factor of the layer `module` of `part`, if the header tells it.
    pub(super) fn factor(&self, part: Option<ModelPart>, module: &str) -> Option<Factor> {
        let names: &[&str] = match part? {
            ModelPart::Denoiser => &["unet", "transformer"],
            ModelPart::TextEncoder => &["text_encoder"],
            ModelPart::TextEncoder2 => &["text_encoder_2"],
            ModelPart::TextEncoder3 => &["text_encoder_3"],
        };
        let settings = names.iter().find_map(|name| self.0.get(*name))?;
        let belongs = |pattern: &str| {
            module
                .strip_suffix(pattern)
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let own = settings
            .alpha_pattern
            .iter()
            .find(|(pattern, _)| belongs(pattern));
        Some(Factor {
            alpha: own.map(|(_, &alpha)| alpha).or(settings.lora_alpha)?,
            root: settings.use_rslora,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_alphas_by_network_and_layer() {
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
        assert!(!alphas.any_dora());
        assert!(read(r#"{"unet.use_dora": true}"#).any_dora());
        assert_eq!(read("[").factor(Some(ModelPart::Denoiser), "a"), None);
    }
}
