//! Files and folders that appear whole or not at all.

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

/// A file beside `path` that is deleted unless it is kept.
pub(super) fn file_for(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // Temporary files are private by default; saved files get the default permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// A folder beside `path` that is deleted unless it is kept.
pub(super) fn folder_for(path: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(folder_of(path))
}

/// Gives `file` the name `path`, in place of a file that is there.
pub(super) fn keep_file(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(folder_of(path));
    Ok(())
}

/// Gives `folder` the name `path`, in place of a folder that is there.
pub(super) fn keep_folder(folder: TempDir, path: &Path) -> io::Result<()> {
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
