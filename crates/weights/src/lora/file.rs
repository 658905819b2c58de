//! A LoRA file and its layers, opened by its header.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::alphas::{Alphas, adapter_settings};
use super::key::{Key, Role, parse};
use super::layer::{Found, Layer};
use super::{ModelPart, hash};
use crate::source::Source;
use crate::{Checkpoint, Error, ModelFamily, Result, gguf, safetensors, torch};

/// A LoRA file, of which only the header and the settings beside it were read.
#[derive(Debug)]
pub struct LoraFile {
    checkpoint: Checkpoint,
    layers: Vec<Layer>,
    source: Arc<Source>,
    /// The metadata in the header of a safetensors file.
    metadata: BTreeMap<String, String>,
    /// The path of the settings that are missing beside the file.
    missing_settings: Option<PathBuf>,
    /// The hash, once it was computed.
    hash: OnceLock<String>,
}

impl LoraFile {
    /// Opens the file at `path`, in safetensors or PyTorch format, with the settings that PEFT writes beside
    /// its files. No matrix is read.
    ///
    /// # Errors
    /// The file is missing or not a weights file; it has no LoRA layers ([`Error::NotLora`]); it uses another
    /// method ([`Error::UnsupportedLora`], [`Error::UnsupportedLoraSetting`]); the matrices of a layer do not
    /// match ([`Error::BadLora`]) or have an unsupported type; or the settings cannot be parsed.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let source = Arc::new(Source::open(path.into())?);
        let checkpoint = Checkpoint::open(source.clone())?;
        let metadata = if torch::wrote(&source)? || gguf::wrote(&source)? {
            BTreeMap::new()
        } else {
            safetensors::metadata(&source)?
        };
        let settings = adapter_settings(source.path());
        let (alphas, missing_settings) = match settings {
            Some(settings) if settings.is_file() => {
                let alphas = Alphas::open(&settings)?;
                alphas.check(source.path(), &settings.to_string_lossy())?;
                (alphas, None)
            }
            settings => {
                let alphas = Alphas::read(&metadata);
                alphas.check(source.path(), "its header")?;
                let are_known = !matches!(alphas, Alphas::Unknown);
                (alphas, settings.filter(|_| !are_known))
            }
        };
        let layers = Self::layers_of(&checkpoint, &alphas)?;
        Ok(Self {
            checkpoint,
            layers,
            source,
            metadata,
            missing_settings,
            hash: OnceLock::new(),
        })
    }

    fn layers_of(checkpoint: &Checkpoint, alphas: &Alphas) -> Result<Vec<Layer>> {
        let file = checkpoint.place();
        let mut found: BTreeMap<(Option<ModelPart>, &str), Found> = BTreeMap::new();
        for (name, _) in checkpoint.tensors() {
            match parse(name) {
                Key::Layer { part, module, role } => {
                    let layer = found.entry((part, module)).or_default();
                    layer.insert(role, name.to_owned());
                }
                Key::Unsupported(method) => {
                    return Err(Error::UnsupportedLora {
                        file: file.to_owned(),
                        tensor: name.to_owned(),
                        method,
                    });
                }
                Key::Other => {}
            }
        }
        // An alpha without matrices is not a LoRA layer.
        found.retain(|_, layer| layer.keys().any(|role| *role != Role::Alpha));
        if found.is_empty() {
            return Err(Error::NotLora {
                file: file.to_owned(),
                tensors: checkpoint.tensors().count(),
            });
        }
        found
            .into_iter()
            .map(|((part, module), found)| Layer::new(checkpoint, alphas, part, module, found))
            .collect()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.checkpoint.place()
    }

    /// The number of layers.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The model family of the LoRA, where its layers show it.
    pub fn family(&self) -> Option<ModelFamily> {
        let layers = self
            .layers
            .iter()
            .filter(|layer| matches!(layer.part, None | Some(ModelPart::Denoiser)));
        ModelFamily::recognise(layers.map(|layer| (layer.module.as_str(), layer.columns)))
    }

    /// The path of the PEFT settings of the file, where they are missing and nothing else has its alphas. The
    /// alphas are then taken to be the ranks.
    pub fn missing_settings(&self) -> Option<&Path> {
        self.missing_settings.as_deref()
    }

    /// The hash by which stable-diffusion-webui identifies the file: twelve hexadecimal digits of the SHA-256
    /// of the data after the header of a safetensors file, or of all bytes of another file. The whole file is
    /// read once, a megabyte at a time.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hash(&self) -> Result<String> {
        if let Some(known) = self.hash.get() {
            return Ok(known.clone());
        }
        let data = if torch::wrote(&self.source)? || gguf::wrote(&self.source)? {
            0
        } else {
            safetensors::data_start(&self.source)?
        };
        let found = hash::of(&self.source, &self.metadata, data)?;
        Ok(self.hash.get_or_init(|| found).clone())
    }

    /// Reads all matrices, a megabyte at a time, and checks that all values are finite.
    ///
    /// # Errors
    /// A value is not finite ([`Error::BadLora`]), or the file cannot be read.
    pub fn check_values(&self) -> Result<()> {
        for layer in &self.layers {
            for name in layer.tensors() {
                if !self.checkpoint.is_finite(name)? {
                    return Err(Error::BadLora {
                        file: self.path().to_owned(),
                        layer: layer.module.clone(),
                        reason: format!("`{name}` holds values that are not finite"),
                    });
                }
            }
            let factor = layer.factor(&self.checkpoint)?;
            if !factor.is_finite() {
                return Err(Error::BadLora {
                    file: self.path().to_owned(),
                    layer: layer.module.clone(),
                    reason: format!("its alpha, divided by its rank, is {factor}"),
                });
            }
        }
        Ok(())
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}
