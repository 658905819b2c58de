//! Which model a run draws with: every file that its pictures depend on.

use std::path::Path;

use sd_weights::{FileIdentity, ModelFolder, adapter_settings};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::bundle::{Bundle, TextEncoders};

const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
];

/// The files of a model as they were when they were looked at. It costs the reading of headers and of small files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelIdentity {
    /// What the encoding of a prompt depends on.
    pub(crate) text: Vec<FileIdentity>,
    /// What a picture depends on besides.
    pub(crate) picture: Vec<FileIdentity>,
}

impl ModelIdentity {
    /// Looks at the files of `bundle`.
    ///
    /// # Errors
    /// One of them has gone or cannot be read.
    pub(crate) fn of(bundle: &Bundle) -> Result<Self> {
        let folder = bundle.folder();
        let mut text = small_files(folder, ["model_index.json".to_owned()])?;
        let clips = bundle.text.clips.iter().map(|part| part.component);
        let encoders: Vec<&str> = clips
            .chain(bundle.text.t5.iter().map(|part| part.component))
            .collect();
        let used = TextEncoders::FOLDERS
            .iter()
            .filter(|(encoder, _)| encoders.contains(encoder));
        for (encoder, tokenizer) in used {
            let names = TOKENIZER_FILES.map(|name| format!("{tokenizer}/{name}"));
            text.extend(small_files(folder, names)?);
            text.extend(small_files(folder, [format!("{encoder}/config.json")])?);
            text.extend(folder.weights_identity(encoder)?);
        }
        for (file, choice) in bundle.loras() {
            text.push(identity_of(&choice.file)?);
            // What says how strongly it is added may lie beside it.
            if let Some(settings) = adapter_settings(file.path()).filter(|settings| settings.is_file()) {
                text.push(identity_of(&settings)?);
            }
        }
        let network = bundle.denoiser.component();
        let names = [
            format!("{network}/config.json"),
            "vae/config.json".to_owned(),
            "scheduler/scheduler_config.json".to_owned(),
        ];
        let mut picture = small_files(folder, names)?;
        for control in bundle.controls() {
            let (folder, component) = control.place();
            picture.extend(small_files(folder, [format!("{component}/config.json")])?);
            picture.extend(folder.weights_identity(component)?);
            picture.push(identity_of(&control.choice.image)?);
        }
        for component in [network, "vae"] {
            picture.extend(folder.weights_identity(component)?);
        }
        Ok(Self { text, picture })
    }

    /// The path of the first file that is not in `now` as it is here, or that is only there.
    pub(crate) fn first_change<'a>(&'a self, now: &'a Self) -> Option<&'a str> {
        let files = |identity: &'a Self| identity.text.iter().chain(&identity.picture);
        let known = |file: &&FileIdentity, others: &'a Self| files(others).any(|other| other == *file);
        let changed = files(self).find(|file| !known(file, now));
        let appeared = || files(now).find(|file| !known(file, self));
        changed.or_else(appeared).map(|file| file.path.as_str())
    }
}

/// A file that lies outside of a model's folder.
fn identity_of(file: &Path) -> Result<FileIdentity> {
    Ok(FileIdentity::of_file(file)?)
}

/// Those of `paths` that are there.
fn small_files(folder: &ModelFolder, paths: impl IntoIterator<Item = String>) -> Result<Vec<FileIdentity>> {
    let there = paths.into_iter().filter(|path| folder.contains(path));
    there.map(|path| Ok(folder.file_identity(&path)?)).collect()
}
