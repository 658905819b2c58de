//! What `generate models verify` can check: files of the hub's cache, and files of the user.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sd_hub::{CachedFile, CheckedFile, RepositoryId};
use sd_pipeline::bundle::FileKind;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::known_hash::KnownHash;
use crate::local::local_path;
use crate::names::reference;

/// A file that can be checked against a hash.
#[derive(Debug, Clone)]
pub struct Verifiable {
    /// The name of a cached file as `owner/name:path`, or the path of a file of the user.
    pub name: String,
    /// The file.
    pub file: CheckedFile,
    /// The repository of a cached file.
    pub repository: Option<RepositoryId>,
    /// The file that says the hash of a file of the user.
    pub source: Option<PathBuf>,
}

impl Verifiable {
    fn cached(found: CachedFile) -> Self {
        Self {
            name: format!("{}:{}", found.id, found.name),
            file: found.file,
            repository: Some(found.id),
            source: None,
        }
    }

    fn of_user(path: &Path) -> io::Result<Self> {
        let known = KnownHash::beside(path);
        let sha256 = known.as_ref().map(|known| known.sha256.as_str());
        Ok(Self {
            name: path.to_string_lossy().into_owned(),
            file: CheckedFile::with_sha256(path, sha256)?,
            repository: None,
            source: known.map(|known| known.source),
        })
    }
}

impl Catalog {
    /// All files of the hub's cache, and those below `models_path` that have their hash beside them.
    pub fn verifiable(&self) -> Vec<Verifiable> {
        let cached = self.cache().files().into_iter().map(Verifiable::cached);
        let kept = self.models_path().files().iter();
        let kept = kept
            .filter(|file| file.path.is_file())
            .filter_map(|file| Verifiable::of_user(&file.path).ok())
            .filter(|file| file.source.is_some());
        cached.chain(kept).collect()
    }

    /// The files that the user calls `name`: at a local path, below `models_path`, or in the hub's cache. None if
    /// the name is none of these.
    ///
    /// # Errors
    /// A file cannot be opened, the name is that of several files below `models_path`, a folder of that is
    /// missing, or the repository is not in the cache.
    pub fn verifiable_as(&self, name: &str) -> Result<Vec<Verifiable>> {
        let mut paths = BTreeSet::new();
        match local_path(name) {
            Some(path) => {
                paths.insert(path);
            }
            None => {
                for kind in FileKind::ALL {
                    paths.extend(self.models_path().find(kind, name)?.map(Path::to_owned));
                }
            }
        }
        if !paths.is_empty() {
            return paths
                .iter()
                .flat_map(|path| files_at(path))
                .map(|path| {
                    Verifiable::of_user(&path).map_err(|source| {
                        Error::Hub(sd_hub::Error::Unread {
                            path: path.clone(),
                            source,
                        })
                    })
                })
                .collect();
        }
        let Some(reference) = reference(name) else {
            return Ok(Vec::new());
        };
        let files = self.cache().files_of(&reference)?;
        Ok(files.into_iter().map(Verifiable::cached).collect())
    }
}

/// `path`, or the files below it if it is a folder.
fn files_at(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let below = sd_files::walk(path).into_iter();
    below
        .map(|found| sd_files::below(path, &found.path))
        .filter(|path| path.is_file())
        .collect()
}
