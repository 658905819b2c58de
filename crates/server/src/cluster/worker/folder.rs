//! [`WorkFolder`]: the folder of a worker, which ends with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster::error::{ClusterError, Result};
use crate::job::JobId;
use crate::prepare::JobFolder;

const LOCK: &str = "lock";

/// The folder of a worker. Everything in it is in the queue, too.
#[derive(Debug)]
pub(super) struct WorkFolder {
    path: PathBuf,
    /// Locked while the worker lives.
    _lock: File,
}

impl WorkFolder {
    /// Makes the folder of the worker `id` in `parent`, and removes those of workers that were killed.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn make(parent: &Path, id: &JobId) -> Result<Self> {
        let path = parent.join(id.as_str());
        let failed = |source| ClusterError::File {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_worker = entry.file_name().to_str().and_then(JobId::parse).is_some();
            if is_worker && is_left(&entry.path()) {
                // Another worker may remove it at the same time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        fs::create_dir_all(&path).map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        lock.try_lock()
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a job, which is empty.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn of_job(&self, id: &JobId) -> Result<JobFolder> {
        let path = self.path.join(id.as_str());
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&path),
        };
        match made {
            Ok(()) => Ok(JobFolder::new(path)),
            Err(source) => Err(ClusterError::File { path, source }),
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether no process works in the folder of a worker.
fn is_left(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_workers_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let [first, second, killed] = [(); 3].map(|()| JobId::random().unwrap());
        let left = parent.path().join(killed.as_str());
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let lives = WorkFolder::make(parent.path(), &first).unwrap();
        assert!(!left.exists());
        WorkFolder::make(parent.path(), &second).unwrap();
        assert!(lives.path().exists());
        assert!(!parent.path().join(second.as_str()).exists());
    }
}
