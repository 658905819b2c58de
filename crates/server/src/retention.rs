//! Removes ended jobs and uploads that are no longer kept.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::job::JobId;
use crate::server::Server;
use crate::store::now;

/// How long an uploaded file is kept for jobs that use it.
const UPLOADS: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time between two sweeps.
const LONGEST_BETWEEN: Duration = Duration::from_secs(60);

/// Removes what is no longer kept, now and then.
pub(crate) async fn keep_sweeping(server: Arc<Server>) {
    let between = server
        .options
        .keep_for
        .clamp(Duration::from_secs(1), LONGEST_BETWEEN);
    loop {
        tokio::time::sleep(between).await;
        let server = server.clone();
        // It ends with the server.
        let _ = tokio::task::spawn_blocking(move || sweep(&server)).await;
    }
}

/// Removes the folders of jobs that are in no queue: a server was killed before it accepted them, or while it removed
/// them.
pub(crate) fn remove_orphans(server: &Server) {
    for entry in fs::read_dir(server.jobs()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(JobId::parse);
        let is_of_job = id.is_some_and(|id| server.store.has(&id).unwrap_or(true));
        if !is_of_job && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!("an old folder cannot be removed: {error}");
        }
    }
}

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
