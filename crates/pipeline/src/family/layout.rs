//! The diffusers layout: which components a model can have, and what a configuration alone shows.

use sd_models::{mmdit, unet};
use sd_weights::ModelSource;

use super::titles::{STABLE_DIFFUSION_3, has_default_controlnets, network_title};
use super::{Family, unknown};
use crate::components::{self, ModelIndex};
use crate::{Error, Result};

/// The component of a transformer.
pub(crate) const TRANSFORMER: &str = "transformer";
/// The component of a UNet.
pub(crate) const UNET: &str = "unet";
/// The components that a denoising network can be, in the order in which they are tried.
pub(crate) const NETWORKS: [&str; 2] = [TRANSFORMER, UNET];
/// The components that text encoders and their tokenizers can be.
pub(crate) const TEXT_ENCODERS: [(&str, &str); 3] = [
    ("text_encoder", "tokenizer"),
    ("text_encoder_2", "tokenizer_2"),
    ("text_encoder_3", "tokenizer_3"),
];

/// What the configuration of a denoising network shows of its model, before its tensors are known.
#[derive(Debug)]
pub struct Description {
    /// The name of the models that share ControlNets with this one.
    pub title: &'static str,
    /// Whether the ControlNets for Stable Diffusion 1 are for it.
    pub has_default_controlnets: bool,
}

impl Description {
    /// The possible paths of the configuration, in the order in which they are tried.
    pub const PATHS: [&str; 2] = ["transformer/config.json", "unet/config.json"];

    /// The description of a model of `family`.
    pub fn of(family: &dyn Family) -> Self {
        Self {
            title: family.network_title(),
            has_default_controlnets: family.has_default_controlnets(),
        }
    }
}

/// What the `text` of the configuration at `path` shows. None if no network has that path, or the text is
/// invalid.
pub fn described(path: &str, text: &[u8]) -> Option<Description> {
    match path.strip_suffix("/config.json")? {
        TRANSFORMER => serde_json::from_slice::<mmdit::Config>(text)
            .ok()
            .map(|_| Description {
                title: STABLE_DIFFUSION_3,
                has_default_controlnets: false,
            }),
        UNET => serde_json::from_slice::<unet::Config>(text)
            .ok()
            .map(|config| Description {
                title: network_title(&config),
                has_default_controlnets: has_default_controlnets(&config),
            }),
        _ => None,
    }
}

/// Refuses a model whose `component` lacks one of `tensors`.
///
/// # Errors
/// It does, or its files are wrong.
pub(super) fn must_have(source: &dyn ModelSource, component: &str, tensors: &[&str]) -> Result<()> {
    let checkpoint = source.checkpoint(component)?;
    match tensors.iter().find(|tensor| checkpoint.header(tensor).is_none()) {
        Some(tensor) => Err(unknown(
            source,
            format!("its {component} has no tensor `{tensor}`"),
        )),
        None => Ok(()),
    }
}

/// Why the model is of no known family.
pub(super) fn unrecognised(source: &dyn ModelSource, index: &ModelIndex) -> Error {
    let has = |component: &str| source.has_config(component);
    let Some(network) = NETWORKS.into_iter().find(|network| has(network)) else {
        return unknown(
            source,
            "it has neither transformer/config.json nor unet/config.json".to_owned(),
        );
    };
    let known = match network {
        TRANSFORMER => components::TRANSFORMERS,
        _ => components::UNETS,
    };
    if let Err(error) = components::check_class(source, Some(index), network, known) {
        return error;
    }
    let encoders: Vec<&str> = TEXT_ENCODERS
        .into_iter()
        .map(|(encoder, _)| encoder)
        .filter(|encoder| index.has(encoder, |component| source.has_config(component)))
        .collect();
    unknown(
        source,
        format!(
            "its {network} with the text encoders {} makes no family that is known",
            encoders.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_diffusion_1_alone_has_default_controlnets() {
        for (config, title, has_some) in [
            (r#"{"cross_attention_dim": 768}"#, "Stable Diffusion 1", true),
            (
                r#"{"cross_attention_dim": 768, "in_channels": 9}"#,
                "Stable Diffusion 1",
                true,
            ),
            (r#"{"cross_attention_dim": 1024}"#, "Stable Diffusion 2", false),
            (
                r#"{"cross_attention_dim": 2048, "addition_embed_type": "text_time"}"#,
                "Stable Diffusion XL",
                false,
            ),
        ] {
            let description = described("unet/config.json", config.as_bytes()).unwrap();
            assert_eq!(description.title, title);
            assert_eq!(description.has_default_controlnets, has_some, "{title}");
        }
    }
}
