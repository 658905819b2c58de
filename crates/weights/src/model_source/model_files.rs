//! The files of a model as the user names them: a folder or a file, and files for single networks of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EmbeddedFile, ModelFolder, ModelSource, NetworkKind, Prediction};

/// The files of a model as the user names them. Nothing is opened yet.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    pub(super) base: Base,
    /// The files of single networks.
    pub networks: NetworkFiles,
    /// What the denoising network predicts, if the user says it.
    pub prediction: Option<Prediction>,
    /// Folders and files in which networks are looked for that neither the model nor the user has.
    pub search: Vec<PathBuf>,
}

/// What holds the model, or most of it.
#[derive(Debug, Clone)]
pub(super) enum Base {
    Folder(ModelFolder),
    File(PathBuf),
}

/// Files that hold a single network each, in place of the model's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkFiles {
    /// The autoencoder.
    pub vae: Option<PathBuf>,
    /// The text encoder CLIP-L.
    pub clip_l: Option<PathBuf>,
    /// The text encoder OpenCLIP-bigG, or in Stable Diffusion 2 OpenCLIP-H.
    pub clip_g: Option<PathBuf>,
    /// The text encoder T5.
    pub t5xxl: Option<PathBuf>,
}

impl NetworkFiles {
    /// The file that was named for the network of `kind`.
    pub(super) fn of(&self, kind: NetworkKind) -> Option<&Path> {
        match kind {
            NetworkKind::Vae => self.vae.as_deref(),
            NetworkKind::ClipL => self.clip_l.as_deref(),
            NetworkKind::ClipG | NetworkKind::ClipH => self.clip_g.as_deref(),
            NetworkKind::T5 => self.t5xxl.as_deref(),
            NetworkKind::UNet(_) | NetworkKind::Mmdit => None,
        }
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.vae, &self.clip_l, &self.clip_g, &self.t5xxl];
        all.into_iter().filter_map(|file| file.as_deref())
    }

    /// The same files with the paths that `change` returns.
    pub fn map(&self, change: impl Fn(&Path) -> PathBuf) -> Self {
        let changed = |file: &Option<PathBuf>| file.as_deref().map(&change);
        Self {
            vae: changed(&self.vae),
            clip_l: changed(&self.clip_l),
            clip_g: changed(&self.clip_g),
            t5xxl: changed(&self.t5xxl),
        }
    }
}

impl ModelFiles {
    /// The model at `path`: a file, or a folder in the layout of diffusers.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let base = if path.is_file() {
            Base::File(path)
        } else {
            Base::Folder(ModelFolder::on_disk(path))
        };
        Self::of(base)
    }

    /// A folder that is built into the binary, called `name` in messages.
    pub fn embedded(name: &str, files: &'static [EmbeddedFile]) -> Self {
        Self::of(Base::Folder(ModelFolder::embedded(name, files)))
    }

    fn of(base: Base) -> Self {
        Self {
            base,
            networks: NetworkFiles::default(),
            prediction: None,
            search: Vec::new(),
        }
    }

    /// The path of the folder or file, or the name of an embedded folder.
    pub fn path(&self) -> &Path {
        match &self.base {
            Base::Folder(folder) => folder.root(),
            Base::File(file) => file,
        }
    }

    /// Whether the model is built into the binary.
    pub fn is_embedded(&self) -> bool {
        matches!(&self.base, Base::Folder(folder) if folder.is_embedded())
    }

    /// Whether there is anything at [`ModelFiles::path`].
    pub fn exists(&self) -> bool {
        match &self.base {
            Base::Folder(folder) => ModelSource::exists(folder),
            Base::File(file) => file.exists(),
        }
    }

    /// Whether the user says nothing that a folder does not say itself.
    pub(super) fn changes_nothing(&self) -> bool {
        self.networks == NetworkFiles::default() && self.prediction.is_none()
    }
}

impl From<ModelFolder> for ModelFiles {
    fn from(folder: ModelFolder) -> Self {
        Self::of(Base::Folder(folder))
    }
}
