//! A model's folder: named files on disk, or the same built into the binary.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::saved_name::SavedName;
use crate::source::Source;
use crate::{Checkpoint, Error, Result};

/// One file of a folder that is built into the binary.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFile {
    /// Its path inside the folder, with `/` between the parts.
    pub path: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
    /// Their SHA-256 in hexadecimal digits, which is known when the binary is built.
    pub digest: &'static str,
}

/// A folder in the layout of diffusers: `model_index.json` and one folder a component.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    embedded: Option<&'static [EmbeddedFile]>,
}

/// Where a component's weights are, as a path inside the folder.
pub(crate) enum WeightsPlace {
    /// In this file.
    File(String),
    /// In the shards that this index lists.
    Index(String),
}

impl ModelFolder {
    /// The folder at `root`. Nothing is read yet.
    pub fn on_disk(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            embedded: None,
        }
    }

    /// A folder built into the binary, called `name` in messages.
    pub fn embedded(name: &str, files: &'static [EmbeddedFile]) -> Self {
        Self {
            root: PathBuf::from(name),
            embedded: Some(files),
        }
    }

    /// The folder's place, or the name of an embedded one.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the folder is built into the binary.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Whether the folder has a file at `path`.
    pub fn contains(&self, path: &str) -> bool {
        match self.embedded {
            Some(files) => files.iter().any(|file| file.path == path),
            None => self.root.join(path).is_file(),
        }
    }

    /// How many bytes the file at `path` has, or none where it is not there.
    pub fn length(&self, path: &str) -> u64 {
        match self.embedded {
            Some(files) => files
                .iter()
                .find(|file| file.path == path)
                .map_or(0, |file| file.bytes.len() as u64),
            None => std::fs::metadata(self.root.join(path)).map_or(0, |metadata| metadata.len()),
        }
    }

    /// The whole of a small file, as bytes.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let source = self.source(path)?;
        let mut bytes = vec![0; source.length() as usize];
        source.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// A JSON file as a `T`.
    ///
    /// # Errors
    /// The file is missing, cannot be read, or is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(path)?).map_err(|error| Error::BadText {
            file: self.root.join(path),
            reason: error.to_string(),
        })
    }

    /// The weights of `component` (the folder `transformer`, say), by their headers alone: one file under
    /// one of its usual names, or the shards that an index lists.
    ///
    /// # Errors
    /// There are no weights, or a header is wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        match self.find_weights(component)? {
            WeightsPlace::File(path) => Checkpoint::open(self.source(&path)?),
            WeightsPlace::Index(path) => Checkpoint::open_shards(self, component, &path),
        }
    }

    pub(crate) fn find_weights(&self, component: &str) -> Result<WeightsPlace> {
        let mut tried = Vec::new();
        for name in SavedName::ALL {
            let file = format!("{component}/{}", name.file());
            if self.contains(&file) {
                return Ok(WeightsPlace::File(file));
            }
            let index = name.indices().map(|index| format!("{component}/{index}"));
            if let Some(index) = index.into_iter().find(|index| self.contains(index)) {
                return Ok(WeightsPlace::Index(index));
            }
            tried.push(name.file());
        }
        Err(Error::MissingWeights {
            folder: self.root.join(component),
            tried,
        })
    }

    pub(crate) fn source(&self, path: &str) -> Result<Arc<Source>> {
        let place = self.root.join(path);
        let source = match self.embedded {
            Some(files) => match files.iter().find(|file| file.path == path) {
                Some(file) => Source::Embedded {
                    path: place,
                    bytes: file.bytes,
                    digest: file.digest,
                },
                None => return Err(Error::MissingFile { file: place }),
            },
            None => Source::open(place)?,
        };
        Ok(Arc::new(source))
    }
}
