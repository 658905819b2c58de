//! Removes ended jobs and uploads that are no longer kept.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::server::Server;
use crate::store::now;

/// How long an uploaded file is kept for jobs that use it.
const UPLOADS: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what is no longer kept. What fails is left for the next time.
pub(crate) fn sweep(server: &Server) {
    let keep_for = i64::try_from(server.options.keep_for.as_millis()).unwrap_or(i64::MAX);
    let outdated = server
        .store
        .outdated(now().saturating_sub(keep_for), server.options.keep_bytes);
    match outdated {
        Ok(outdated) => outdated.iter().for_each(|id| {
            if let Err(error) = server.remove(id) {
                tracing::debug!("the job {id} cannot be removed: {error}");
            }
        }),
        Err(error) => tracing::debug!("old jobs cannot be found: {error}"),
    }
    remove_old(&server.uploads(), UPLOADS);
}

/// The bytes of all files in `folder`.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}

fn remove_old(folder: &Path, age: Duration) {
    let oldest = SystemTime::now().checked_sub(age);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        if let (Ok(changed), Some(oldest)) = (changed, oldest)
            && changed < oldest
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!("an old upload cannot be removed: {error}");
        }
    }
}
