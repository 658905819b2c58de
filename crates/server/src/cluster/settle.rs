//! The end of a job at the front end: its images are fetched, its store says what became of it, and the queue forgets it.

use std::sync::Arc;

use super::connection::Connection;
use super::error::ClusterError;
use super::files;
use super::results::Results;
use super::status::{Status, is_image_name, result_names};
use super::subject::JobKey;
use crate::job::{Job, State};
use crate::prepare::JobFolder;
use crate::retention::bytes_in;
use crate::server::Server;
use crate::store::now;

/// What ended jobs are settled with.
#[derive(Clone)]
pub(super) struct Settler {
    pub(super) server: Arc<Server>,
    pub(super) connection: Connection,
    pub(super) results: Results,
    pub(super) keeps_results: bool,
}

impl Settler {
    /// Settles the job `key`, whose `status` is one of an ended job. When this returns, nothing of it is in the queue.
    ///
    /// # Errors
    /// The queue, the store of results or the disk fails. The job is as it was then.
    pub(super) async fn settle(self, key: JobKey, status: Status) -> crate::Result<()> {
        let folder = self.server.folder_of(&key.job);
        if let Some(job) = self.server.store.job(&key.job)?
            && !job.state.is_ended()
        {
            self.end(job, &key, &status, &folder).await?;
        }
        if !self.keeps_results {
            for (index, image) in status.images.iter().enumerate() {
                let (image, metadata) = result_names(&key, index, image);
                self.results.remove(&image).await;
                self.results.remove(&metadata).await;
            }
        }
        self.connection.remove_files(&key, &status.files).await;
        self.connection.remove_files(&key, &files::inputs(&folder)).await;
        if status.state == State::Cancelled {
            // Without a worker, nobody acknowledges it.
            self.connection.remove_job(&status.subject).await?;
        }
        self.connection.remove_status(&key).await?;
        Ok(())
    }

    /// Writes what became of a job, once its images are in its folder.
    async fn end(
        &self,
        mut job: Job,
        key: &JobKey,
        status: &Status,
        folder: &JobFolder,
    ) -> crate::Result<()> {
        if status.state == State::Done {
            for (index, image) in status.images.iter().enumerate() {
                if !is_image_name(&image.name) {
                    return Err(crate::Error::from(ClusterError::Unreadable {
                        name: key.to_string(),
                        reason: format!("`{}` is no name of an image", image.name),
                    }));
                }
                let (object, metadata) = result_names(key, index, image);
                let path = folder.images().join(&image.name);
                files::write(&path, &self.results.get(&object).await?)?;
                files::write(&path.with_extension("json"), &self.results.get(&metadata).await?)?;
            }
        }
        let changing = self.server.changing();
        // It may have been cancelled and removed meanwhile.
        if self
            .server
            .store
            .job(&job.id)?
            .is_none_or(|job| job.state.is_ended())
        {
            return Ok(());
        }
        job.state = status.state;
        job.images.clone_from(&status.images);
        job.error.clone_from(&status.error);
        job.warnings.clone_from(&status.warnings);
        job.started = job.started.or(status.started);
        job.finished = Some(now());
        let bytes = bytes_in(&folder.images()) + bytes_in(folder.inputs().folder());
        self.server.store.update(&job, bytes)?;
        self.server.end_running(&job.id);
        self.server.changed(&job);
        drop(changing);
        self.server.finished(&job);
        Ok(())
    }
}
