//! The classes that a model's components declare. Components of unsupported classes are refused by name
//! before their tensors are read.

use std::path::PathBuf;

use sd_weights::ModelSource;
use serde::Deserialize;

use super::model_index::ModelIndex;
use crate::{Error, Result};

/// The classes of a VAE.
pub(crate) const AUTOENCODERS: &[&str] = &["AutoencoderKL"];
/// The classes of a UNet.
pub(crate) const UNETS: &[&str] = &["UNet2DConditionModel"];
/// The classes of an MMDiT transformer.
pub(crate) const TRANSFORMERS: &[&str] = &["SD3Transformer2DModel"];
/// The classes of a CLIP text encoder.
pub(crate) const CLIPS: &[&str] = &["CLIPTextModel", "CLIPTextModelWithProjection"];
/// The classes of a T5 text encoder.
pub(crate) const T5S: &[&str] = &["T5EncoderModel"];
/// The classes of a ControlNet for a UNet.
pub(crate) const CONTROLNETS_OF_UNETS: &[&str] = &["ControlNetModel"];
/// The classes of a ControlNet for an MMDiT transformer.
pub(crate) const CONTROLNETS_OF_TRANSFORMERS: &[&str] = &["SD3ControlNetModel"];

/// The class in a configuration of diffusers. Configurations of transformers have none.
#[derive(Deserialize)]
#[serde(expecting = "settings by their names")]
struct Named {
    #[serde(rename = "_class_name")]
    class_name: Option<serde_json::Value>,
}

/// Refuses the `component` if its configuration or `index` declares a class other than `known`.
///
/// # Errors
/// It does, or its configuration cannot be read.
pub(crate) fn check(
    source: &dyn ModelSource,
    index: Option<&ModelIndex>,
    component: &str,
    known: &'static [&'static str],
) -> Result<()> {
    let refuse = |file: PathBuf, class: &str| {
        if known.contains(&of_torch(class)) {
            return Ok(());
        }
        Err(Error::OtherClass {
            file,
            component: component.to_owned(),
            class: class.to_owned(),
            known,
        })
    };
    if let Some(class) = index.and_then(|index| index.class_of(component)) {
        refuse(source.path().join(ModelIndex::FILE), class)?;
    }
    let config = source.config(component)?;
    let named: Named = config.json()?;
    match named.class_name.as_ref().and_then(serde_json::Value::as_str) {
        Some(class) => refuse(config.path, class),
        None => Ok(()),
    }
}

/// Whether the `component` is of one of the `known` classes, as far as its configuration and `index` declare.
///
/// # Errors
/// Its configuration cannot be read.
pub(crate) fn is_of(
    source: &dyn ModelSource,
    index: Option<&ModelIndex>,
    component: &str,
    known: &'static [&'static str],
) -> Result<bool> {
    match check(source, index, component, known) {
        Ok(()) => Ok(true),
        Err(Error::OtherClass { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The PyTorch class of the same network: a model trained with Flax may have weights for both.
fn of_torch(class: &str) -> &str {
    class.strip_prefix("Flax").unwrap_or(class)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sd_weights::ModelFolder;

    use super::*;

    #[test]
    fn another_class_is_refused_by_name_wherever_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let vae = folder.path().join("vae");
        fs::create_dir(&vae).unwrap();
        let said = |config: &str, index: &str| {
            fs::write(vae.join("config.json"), config).unwrap();
            let index: ModelIndex = serde_json::from_str(index).unwrap();
            check(
                &ModelFolder::on_disk(folder.path()),
                Some(&index),
                "vae",
                AUTOENCODERS,
            )
        };
        let (right, nothing) = (r#"{"_class_name": "AutoencoderKL"}"#, "{}");
        said(right, nothing).unwrap();
        said(nothing, nothing).unwrap();
        said(
            r#"{"_class_name": "FlaxAutoencoderKL"}"#,
            r#"{"vae": ["diffusers", "FlaxAutoencoderKL"]}"#,
        )
        .unwrap();
        for (config, index, class, file) in [
            (
                r#"{"_class_name": "AutoencoderTiny"}"#,
                nothing,
                "AutoencoderTiny",
                "config.json",
            ),
            (
                right,
                r#"{"vae": ["diffusers", "AsymmetricAutoencoderKL"]}"#,
                "AsymmetricAutoencoderKL",
                "model_index.json",
            ),
        ] {
            let message = said(config, index).unwrap_err().to_string();
            assert!(message.contains(class) && message.contains(file), "{message}");
        }
    }
}
