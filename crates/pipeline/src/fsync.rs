//! fsync of a folder: without it a new file's name can be lost in a power failure.

use std::path::Path;

/// Writes the names in `folder` to the disk, where the system has fsync for folders. Where it has not, the system writes
/// them soon anyway, so that is no error.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Err(error) = std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!("cannot have `{}` written to the disk: {error}", folder.display());
    }
    #[cfg(not(unix))]
    let _ = folder;
}
