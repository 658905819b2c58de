//! Which files the images of a run depend on: its models', and those that the user names beside them.

use std::path::{Path, PathBuf};

use sd_weights::{FileIdentity, MODEL_INDEX, SourcePart, adapter_settings};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::bundle::Bundle;
use crate::recipe::Recipe;

/// The files of a model as they were when they were looked at. It costs the reading of headers and of small files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelIdentity {
    /// What the encoding of a prompt depends on.
    pub(crate) text: Vec<FileIdentity>,
    /// What an image depends on besides.
    pub(crate) image: Vec<FileIdentity>,
}

impl ModelIdentity {
    /// Looks at the files of `bundle`.
    ///
    /// # Errors
    /// One of them has gone or cannot be read.
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
            // What says how strongly it is added may lie beside it.
            if let Some(settings) = adapter_settings(file.path()).filter(|settings| settings.is_file()) {
                text.push(identity_of(&settings)?);
            }
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

    /// The path of the first file that is not in `now` as it is here, or that is only there.
    pub(crate) fn first_change<'a>(&'a self, now: &'a Self) -> Option<&'a str> {
        first_change(&self.text, &now.text).or_else(|| first_change(&self.image, &now.image))
    }
}

/// The files beside its models that the images of `recipe` depend on: the initial image, its mask, and the `upscaler`.
///
/// # Errors
/// One of them has gone or cannot be read.
pub(crate) fn inputs(recipe: &Recipe, upscaler: Option<&Path>) -> Result<Vec<FileIdentity>> {
    let img2img = recipe.img2img.iter();
    let images = img2img.flat_map(|img2img| img2img.image.iter().chain(&img2img.mask));
    let files = images.map(PathBuf::as_path).chain(upscaler);
    files.map(identity_of).collect()
}

/// The path of the first file of `before` that is not in `now` as it was, or that is only there.
pub(crate) fn first_change<'a>(before: &'a [FileIdentity], now: &'a [FileIdentity]) -> Option<&'a str> {
    let changed = before.iter().find(|file| !now.contains(file));
    let appeared = || now.iter().find(|file| !before.contains(file));
    changed.or_else(appeared).map(|file| file.path.as_str())
}

/// A file that lies outside of a model's folder, by its whole path.
fn identity_of(file: &Path) -> Result<FileIdentity> {
    let mut identity = FileIdentity::of_file(file)?;
    identity.path = whole(file.to_owned());
    Ok(identity)
}

/// The whole path of a file, whatever folder is the current one.
fn whole(path: PathBuf) -> String {
    let whole = std::path::absolute(&path).unwrap_or(path);
    whole.to_string_lossy().into_owned()
}
