//! The names of networks' weights in the cache of blocks: a digest of everything that the blocks depend on.

use sd_weights::{Checkpoint, FileIdentity, ModelFile, WeightType, adapter_settings};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::request::LoraChoice;
use crate::{Result, checksummed};

/// Everything that the blocks of a network depend on, apart from the device.
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

/// The name of the weights in `checkpoint` with `loras` added, for a network that `config` describes, which
/// are held as `weight_type`.
///
/// # Errors
/// A file has gone or cannot be read.
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
    // Texts and numbers, whose JSON cannot fail.
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
