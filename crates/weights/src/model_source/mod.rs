//! Where a model comes from: its configurations, tensors and tokenizers by component.
//!
//! A component has the name of its folder in diffusers: `unet`, `vae`, `text_encoder_2`, `tokenizer`,
//! `scheduler`. A pipeline asks for components alone, so that it does not depend on how the model is stored.
//! [`ModelFolder`] is a model in the layout of diffusers. [`ModelFiles`] are what the user names: such a
//! folder, or a single file, with files for single networks.

mod assembled;
mod beside;
mod builtin_tokenizer;
mod file_content;
mod folder;
mod header_cache;
mod model_files;
mod open;
mod saved_name;
mod saved_texts;
mod single_file;
mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

pub use builtin_tokenizer::{BuiltInTokenizer, ClipPadding, SpecialIds};
pub use file_content::{FileContent, NetworkKind};
pub use folder::{EmbeddedFile, ModelFolder};
pub use header_cache::HeaderCache;
pub use model_files::{ModelFiles, NetworkFiles};
pub use open::open_controlnet;
pub use saved_name::{WeightFiles, weight_files};
pub(crate) use saved_texts::SavedTexts;
pub(crate) use single_file::{Network, SingleFile, network_kind};
pub use single_file::{Prediction, checkpoint_content};
pub use tokenizer::{TokenizerFiles, Vocabulary};

use crate::{Checkpoint, Error, FileIdentity, Result};

/// The component whose configuration is `model_index.json`, which lists the classes of all others.
pub const MODEL_INDEX: &str = "model_index";

/// A model as its files describe it. Nothing but headers is read of weights.
pub trait ModelSource: fmt::Debug + Send + Sync {
    /// The path of the model, or its name where it is built into the binary. Messages show it.
    fn path(&self) -> &Path;

    /// Whether the model is built into the binary.
    fn is_embedded(&self) -> bool;

    /// Whether there is anything at [`ModelSource::path`].
    fn exists(&self) -> bool;

    /// Whether the model has a configuration of `component`.
    fn has_config(&self, component: &str) -> bool;

    /// The configuration of `component`, as diffusers and transformers write it.
    ///
    /// # Errors
    /// The configuration is missing, too long, or cannot be read.
    fn config(&self, component: &str) -> Result<ModelFile>;

    /// The tensors of `component`, by their headers alone.
    ///
    /// # Errors
    /// There are no weights, they are quantised by a method that is not supported, or a header is wrong.
    fn checkpoint(&self, component: &str) -> Result<Checkpoint>;

    /// The files of the tokenizer `component`.
    ///
    /// # Errors
    /// A file is missing, too long, or cannot be read.
    fn tokenizer(&self, component: &str) -> Result<TokenizerFiles>;

    /// The length in bytes of the vocabulary of the tokenizer `component`, 0 where the model has no such
    /// tokenizer.
    fn vocabulary_bytes(&self, component: &str) -> u64;

    /// The identities of the files of `part`, with absolute paths unless the model is built into the binary.
    /// Optional files that are missing are left out.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    fn identity(&self, part: SourcePart<'_>) -> Result<Vec<FileIdentity>>;

    /// The SHA-256 of the file that holds the weights of `component`, in hexadecimal digits, or `None` where
    /// that would have to be computed.
    fn known_sha256(&self, component: &str) -> Option<String>;
}

/// The files of a component that [`ModelSource::identity`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePart<'a> {
    /// The configuration of this component.
    Config(&'a str),
    /// The weights of this component.
    Weights(&'a str),
    /// The tokenizer with this name.
    Tokenizer(&'a str),
}

/// A small file of a model, read whole.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The path of the file. Messages show it.
    pub path: PathBuf,
    /// The content.
    pub bytes: Vec<u8>,
}

impl ModelFile {
    /// The JSON of the file as a `T`.
    ///
    /// # Errors
    /// The file is not JSON, or not that of a `T`; then the setting is named.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let bad_text = |error: serde_json::Error| Error::BadText {
            file: self.path.clone(),
            reason: error.to_string(),
        };
        let mut json = serde_json::Deserializer::from_slice(&self.bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let place = error.path().to_string();
            let error = error.into_inner();
            if error.classify() != Category::Data {
                return bad_text(error);
            }
            let setting = match place.as_str() {
                // It is the whole, which lacks a setting for instance.
                "." => String::new(),
                setting => format!("`{setting}`: "),
            };
            Error::WrongSetting {
                file: self.path.clone(),
                reason: format!("{setting}{error}"),
            }
        })?;
        json.end().map_err(bad_text)?;
        Ok(value)
    }
}
