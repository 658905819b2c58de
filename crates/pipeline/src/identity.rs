//! The files that the images of a run depend on: those of its models, and the input files of the user.

use std::path::{Path, PathBuf};

use sd_weights::{FileIdentity, MODEL_INDEX, SourcePart, adapter_settings};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::bundle::Bundle;
use crate::recipe::Recipe;

/// The identities of a model's files. Computing them reads headers and small files only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelIdentity {
    /// The files that the encoded prompts depend on.
    pub(crate) text: Vec<FileIdentity>,
    /// The other files that an image depends on.
    pub(crate) image: Vec<FileIdentity>,
}

impl ModelIdentity {
    /// The identities of the files of `bundle`.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub(crate) fn of(bundle: &Bundle) -> Result<Self> {
        let source = bundle.source();
        let mut text = source.identity(SourcePart::Config(MODEL_INDEX))?;
        for folders in bundle.family.text_encoders().components() {
            let (encoder, tokenizer) = (folders.encoder, folders.tokenizer);
            text.extend(source.identity(SourcePart::Tokenizer(tokenizer))?);
            text.extend(source.identity(SourcePart::Config(encoder))?);
            text.extend(source.identity(SourcePart::Weights(encoder))?);
        }
        for (file, choice) in bundle.loras() {
            text.push(identity_of(&choice.file)?);
            // A file of settings beside the LoRA may hold its scale.
            if let Some(settings) = adapter_settings(file.path()).filter(|settings| settings.is_file()) {
                text.push(identity_of(&settings)?);
            }
        }
        for (_, choice) in bundle.embeddings() {
            text.push(identity_of(&choice.file)?);
        }
        let network = bundle.family.component();
        let mut image = Vec::new();
        for component in [network, "vae", "scheduler"] {
            image.extend(source.identity(SourcePart::Config(component))?);
        }
        for component in [network, "vae"] {
            image.extend(source.identity(SourcePart::Weights(component))?);
        }
        for control in bundle.controls() {
            let (source, component) = control.component();
            image.extend(source.identity(SourcePart::Config(component))?);
            image.extend(source.identity(SourcePart::Weights(component))?);
            image.push(identity_of(&control.choice.image)?);
        }
        Ok(Self { text, image })
    }

    /// The path of the first file that differs in `now`, or that only `now` has.
    pub(crate) fn first_change<'a>(&'a self, now: &'a Self) -> Option<&'a str> {
        first_change(&self.text, &now.text).or_else(|| first_change(&self.image, &now.image))
    }
}

/// The input files of `recipe` beside its models: the initial image, its mask, and the `upscaler`.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn inputs(recipe: &Recipe, upscaler: Option<&Path>) -> Result<Vec<FileIdentity>> {
    let img2img = recipe.img2img.iter();
    let images = img2img.flat_map(|img2img| img2img.image.iter().chain(&img2img.mask));
    let files = images.map(PathBuf::as_path).chain(upscaler);
    files.map(identity_of).collect()
}

/// The path of the first file of `before` that differs in `now`, or that only `now` has.
pub(crate) fn first_change<'a>(before: &'a [FileIdentity], now: &'a [FileIdentity]) -> Option<&'a str> {
    let changed = before.iter().find(|file| !now.contains(file));
    let appeared = || now.iter().find(|file| !before.contains(file));
    changed.or_else(appeared).map(|file| file.path.as_str())
}

/// The identity of a file outside the model's folder, under its absolute path.
fn identity_of(file: &Path) -> Result<FileIdentity> {
    let mut identity = FileIdentity::of_file(file)?;
    identity.path = whole(file.to_owned());
    Ok(identity)
}

/// The absolute path of a file.
fn whole(path: PathBuf) -> String {
    let whole = std::path::absolute(&path).unwrap_or(path);
    whole.to_string_lossy().into_owned()
}
