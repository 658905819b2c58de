//! Files of jobs as objects of the queue: source images, and the state of runs that another worker may go on with.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use async_nats::jetstream::object_store::ObjectStore;
use tokio::io::AsyncReadExt;

use super::connection::Connection;
use super::error::{ClusterError, Result};
use super::subject::JobKey;
use crate::prepare::JobFolder;

/// Endings of the files that a run goes on with: its state, and the images that it has saved.
const KEPT: [&str; 5] = ["safetensors", "png", "jpg", "webp", "json"];

/// Writes `bytes` as the object `name`, over an older one.
///
/// # Errors
/// The queue fails.
pub(crate) async fn put(bucket: &ObjectStore, name: &str, bytes: &[u8]) -> Result<()> {
    let mut reader = bytes;
    let stored = bucket.put(name, &mut reader).await;
    stored.map(drop).map_err(ClusterError::queue("store a file"))
}

/// The bytes of the object `name`.
///
/// # Errors
/// There is none, or the queue fails.
pub(crate) async fn get(bucket: &ObjectStore, name: &str) -> Result<Vec<u8>> {
    let object = bucket.get(name).await;
    let mut object = object.map_err(ClusterError::queue("fetch a file"))?;
    let mut bytes = Vec::new();
    let read = object.read_to_end(&mut bytes).await;
    read.map_err(ClusterError::queue("fetch a file"))?;
    Ok(bytes)
}

/// Writes `bytes` into `path`, whole or not at all.
///
/// # Errors
/// The disk fails.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_added_extension("part");
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&part, bytes))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|source| ClusterError::File {
        path: path.to_owned(),
        source,
    })
}

impl Connection {
    /// Stores the file `name` of the folder of a job.
    ///
    /// # Errors
    /// The file cannot be read, or the queue fails.
    pub(crate) async fn store_file(&self, key: &JobKey, folder: &JobFolder, name: &str) -> Result<()> {
        let path = folder.path().join(name);
        let bytes = tokio::fs::read(&path).await;
        let bytes = bytes.map_err(|source| ClusterError::File { path, source })?;
        put(&self.files, &key.object(name), &bytes).await
    }

    /// Fetches the file `name` into the folder of a job.
    ///
    /// # Errors
    /// There is none, or it cannot be written, or the name leads out of the folder.
    pub(crate) async fn fetch_file(&self, key: &JobKey, folder: &JobFolder, name: &str) -> Result<()> {
        let is_inside = Path::new(name)
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !is_inside {
            return Err(ClusterError::Unreadable {
                name: key.to_string(),
                reason: format!("`{name}` is no file of a job"),
            });
        }
        let bytes = get(&self.files, &key.object(name)).await?;
        write(&folder.path().join(name), &bytes)
    }

    /// Removes files of a job. What cannot be removed is too old at some time.
    pub(crate) async fn remove_files(&self, key: &JobKey, names: &[String]) {
        for name in names {
            if let Err(error) = self.files.delete(key.object(name)).await {
                tracing::debug!("`{name}` of the job {} stays in the queue: {error}", key.job);
            }
        }
    }
}

/// Which files of a run are stored, and in which state.
#[derive(Debug, Default)]
pub(crate) struct StoredRun(BTreeMap<String, Version>);

/// What tells two versions of a file apart.
type Version = (u64, Option<SystemTime>);

impl StoredRun {
    /// The names of the files that are stored.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Stores the files of the run in `folder` that have changed, the images before the state that knows them. Returns
    /// whether there were any.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn update(
        &mut self,
        connection: &Connection,
        key: &JobKey,
        folder: &JobFolder,
    ) -> Result<bool> {
        let mut has_changed = false;
        for (name, version) in versions(folder) {
            if self.0.get(&name) == Some(&version) {
                continue;
            }
            match connection.store_file(key, folder, &name).await {
                // The run has just replaced or removed it.
                Err(ClusterError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.0.insert(name, version);
                    has_changed = true;
                }
            }
        }
        Ok(has_changed)
    }

    /// Notes the files that were fetched into `folder`.
    pub(crate) fn note(&mut self, folder: &JobFolder) {
        self.0.extend(versions(folder));
    }
}

/// The files of a run with their versions.
fn versions(folder: &JobFolder) -> Vec<(String, Version)> {
    let mut found = Vec::new();
    for inner in [folder.images(), folder.state()] {
        let mut folders = vec![inner];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
                let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push(path);
                } else if is_kept(&path)
                    && let Ok(inside) = path.strip_prefix(folder.path())
                {
                    found.push((slashed(inside), (metadata.len(), metadata.modified().ok())));
                }
            }
        }
    }
    found
}

/// Whether a run goes on with the file. Those that are being written have another ending or begin with a dot.
fn is_kept(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_hidden = || {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    extension.is_some_and(|extension| KEPT.contains(&extension)) && !is_hidden()
}

/// A path with slashes, on every system.
fn slashed(path: &Path) -> String {
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

/// The names of the source images in the folder of a job.
pub(crate) fn inputs(folder: &JobFolder) -> Vec<String> {
    let inputs: PathBuf = folder.inputs().folder().to_owned();
    let entries = fs::read_dir(&inputs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.path().strip_prefix(folder.path()).ok().map(slashed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_state_and_whole_images() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobFolder::new(folder.path().to_owned());
        for name in [
            "state/runs/k7f3.safetensors",
            "state/runs/k7f3.part",
            "state/runs/k7f3.lock",
            "images/a.png",
            "images/a.json",
            "images/.b.png",
            "inputs/init_image",
        ] {
            write(&folder.path().join(name), b"bytes").unwrap();
        }
        let mut names: Vec<String> = versions(&job).into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(
            names,
            ["images/a.json", "images/a.png", "state/runs/k7f3.safetensors"]
        );
        assert_eq!(inputs(&job), ["inputs/init_image"]);
    }
}
