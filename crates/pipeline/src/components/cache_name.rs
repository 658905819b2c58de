//! The names of weights in the block cache: a digest of everything that the blocks depend on.

use sd_weights::{Checkpoint, FileIdentity, ModelFile, WeightType, adapter_settings};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::request::LoraChoice;
use crate::{Result, checksummed};

/// Everything that the blocks of a network depend on, except the device.
#[derive(Serialize)]
struct Origin<'a> {
    config: &'a [u8],
    weights: Vec<FileIdentity>,
    loras: Vec<LoraOrigin>,
    weight_type: String,
}

/// A LoRA file that is added to the weights.
#[derive(Serialize)]
struct LoraOrigin {
    /// The file, and the settings beside it.
    files: Vec<FileIdentity>,
    scale: f64,
    text_scale: f64,
}

/// The name of the weights of `checkpoint` with `loras` added, for a network of `config`, held as
/// `weight_type`.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn cache_name<'l>(
    config: &ModelFile,
    checkpoint: &Checkpoint,
    loras: impl IntoIterator<Item = &'l LoraChoice>,
    weight_type: WeightType,
) -> Result<String> {
    let origin = Origin {
        config: &config.bytes,
        weights: checkpoint.identity()?,
        loras: loras.into_iter().map(LoraOrigin::of).collect::<Result<_>>()?,
        weight_type: format!("{weight_type:?}"),
    };
    // Serialising strings and numbers cannot fail.
    let text = serde_json::to_vec(&origin).unwrap_or_default();
    Ok(checksummed::hexadecimal(&Sha256::digest(text)))
}

impl LoraOrigin {
    fn of(choice: &LoraChoice) -> Result<Self> {
        let settings = adapter_settings(&choice.file).filter(|settings| settings.is_file());
        let files = std::iter::once(choice.file.clone()).chain(settings);
        Ok(Self {
            files: files
                .map(|file| Ok(FileIdentity::of_file(&file)?))
                .collect::<Result<_>>()?,
            scale: choice.scale,
            text_scale: choice.text_scale,
        })
    }
}
