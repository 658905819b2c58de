//! The lock of a run. The system releases it when its process dies, in whatever way.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A check whether a lock is held takes it for a moment. Retry this often, with this pause.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The lock of one run, held until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the lock at `path`, or returns `None` if another process holds it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        for _ in 1..ATTEMPTS {
            match Self::take_at_once(path)? {
                None => thread::sleep(PAUSE),
                taken => return Ok(taken),
            }
        }
        Self::take_at_once(path)
    }

    /// As [`RunLock::take`], without retries.
    pub(super) fn take_at_once(path: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            // The file may have been removed since it was opened; the lock would then be on an unlinked file.
            Ok(()) if path.exists() => Ok(Some(Self {
                file,
                path: path.to_owned(),
            })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a process holds the lock at `path`.
    pub(super) fn is_held(path: &Path) -> io::Result<bool> {
        match File::options().append(true).open(path) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file and releases the lock.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        drop(self.file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!RunLock::is_held(&path).unwrap());
        let lock = RunLock::take(&path).unwrap().unwrap();
        assert!(RunLock::is_held(&path).unwrap());
        assert!(RunLock::take(&path).unwrap().is_none());
        drop(lock);
        assert!(!RunLock::is_held(&path).unwrap());
        RunLock::take(&path).unwrap().unwrap().remove().unwrap();
        assert!(!path.exists());
    }
}
