//! Files and folders that appear whole or not at all.
//!
//! While they are written they have other names, and their process holds a lock on them. So what a killed process has
//! left is known by its name, and by its lock that nobody holds.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

/// The prefix of the names of unfinished files and folders.
const PREFIX: &str = ".convert-";

/// The folder of `path`.
fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// A folder that is written.
pub(super) struct UnfinishedFolder {
    folder: TempDir,
    /// Its lock, where the system has locks of folders.
    lock: Option<File>,
}

impl UnfinishedFolder {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what killed processes have left beside `path`.
pub(super) fn sweep(path: &Path) {
    let Ok(entries) = fs::read_dir(folder_of(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let left = entry.path();
        // Where a lock cannot be asked for, somebody may hold it.
        let Some(_lock) = lock(&left).filter(|_| is_unfinished) else {
            continue;
        };
        // It is not worth an error of the new conversion.
        let _ = match left.is_dir() {
            true => fs::remove_dir_all(&left),
            false => fs::remove_file(&left),
        };
    }
}

/// The lock of the file or folder at `path`, if no process holds it.
#[cfg(unix)]
fn lock(path: &Path) -> Option<File> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return None;
    }
    let file = File::open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Other systems have no locks of folders, and their locks of files keep other programs from reading.
#[cfg(not(unix))]
fn lock(_: &Path) -> Option<File> {
    None
}

/// A file beside `path` that is deleted unless it is kept.
pub(super) fn file_for(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // Temporary files are private by default; saved files get the default permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder_of(path))?;
    // Without locks, as on some network disks, nothing is removed either.
    #[cfg(unix)]
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// A folder beside `path` that is deleted unless it is kept.
pub(super) fn folder_for(path: &Path) -> io::Result<UnfinishedFolder> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let folder = builder.tempdir_in(folder_of(path))?;
    Ok(UnfinishedFolder {
        lock: lock(folder.path()),
        folder,
    })
}

/// Gives `file` the name `path`, in place of a file that is there.
pub(super) fn keep_file(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(folder_of(path));
    Ok(())
}

/// Gives `folder` the name `path`, in place of a folder that is there.
pub(super) fn keep_folder(folder: UnfinishedFolder, path: &Path) -> io::Result<()> {
    let UnfinishedFolder { folder, lock } = folder;
    let replaced = if path.exists() {
        let old = folder_for(path)?;
        let place = old.path().join("replaced");
        fs::rename(path, &place)?;
        Some((old, place))
    } else {
        None
    };
    if let Err(error) = fs::rename(folder.path(), path) {
        if let Some((_, place)) = replaced {
            fs::rename(place, path)?;
        }
        return Err(error);
    }
    // It has another name now, so that there is nothing to delete.
    drop(folder.keep());
    drop(lock);
    sync(folder_of(path));
    Ok(())
}

/// Writes `bytes` to a new file at `path`.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}

/// Makes the names in `folder` durable, where the system has a call for that.
fn sync(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        // A failure only means that a crash of the system can undo the last renaming.
        let _ = folder.sync_all();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_writes_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let (file, unfinished) = (file_for(&target).unwrap(), folder_for(&target).unwrap());
        // Left by a killed process, and those of others.
        fs::write(folder.path().join(".convert-killed"), "half").unwrap();
        fs::create_dir_all(folder.path().join(".convert-dead/unet")).unwrap();
        fs::write(folder.path().join(".converted"), "mine").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join(".convert-link")).unwrap();
        sweep(&target);
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        let mut wanted = vec![
            file.path().to_owned(),
            unfinished.path().to_owned(),
            folder.path().join(".converted"),
            folder.path().join(".convert-link"),
        ];
        wanted.sort();
        assert_eq!(left, wanted);
        keep_folder(unfinished, &target).unwrap();
        assert!(target.is_dir());
    }
}
