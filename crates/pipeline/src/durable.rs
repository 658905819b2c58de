//! What survives a power failure: a file's name lies in its folder, which is written back on its own.

use std::path::Path;

/// Has the names in `folder` written to the disk, where the system can be asked for that. Where it cannot, they
/// are written soon anyway, so that is no error.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Err(error) = std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!("cannot have `{}` written to the disk: {error}", folder.display());
    }
    #[cfg(not(unix))]
    let _ = folder;
}
