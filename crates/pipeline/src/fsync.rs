//! fsync of a folder. Without it the name of a new file can be lost in a power failure.

use std::path::Path;

/// Flushes the directory entries of `folder` to the disk. Systems without fsync for folders write them soon
/// anyway, so a failure is no error.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Err(error) = std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!("cannot have `{}` written to the disk: {error}", folder.display());
    }
    #[cfg(not(unix))]
    let _ = folder;
}
