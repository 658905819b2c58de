//! Waits for a job whose client waits for its images.

use std::path::PathBuf;

use axum::http::StatusCode;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError};
use crate::error::Error;
use crate::events::JobEvent;
use crate::job::{Job, JobId, JobRequest, State};
use crate::submit::submit;

/// A job whose client waits. If the client goes away, nobody wants the images any more, and the job is cancelled.
pub(super) struct Awaited {
    server: Shared,
    pub(super) id: JobId,
    events: Receiver<JobEvent>,
    is_ended: bool,
}

impl Awaited {
    /// Submits `request` for `user`.
    ///
    /// # Errors
    /// It is not accepted.
    pub(super) async fn submit(server: &Shared, request: JobRequest, user: String) -> Answer<Self> {
        let server = server.clone();
        // In a task of its own, which ends also if the client goes away meanwhile, and then drops what it has made.
        let submitted = tokio::spawn(async move {
            // Before the job can begin.
            let events = server.events.listen();
            let shared = server.clone();
            let job = blocking(move || submit(&shared, request, user)).await?;
            Ok(Self {
                server,
                id: job.id,
                events,
                is_ended: false,
            })
        });
        submitted.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The next event of the job; `None` once it has ended.
    pub(super) async fn next(&mut self) -> Option<JobEvent> {
        while !self.is_ended {
            match self.events.recv().await {
                Ok(event) if event.job == self.id => {
                    self.is_ended = event.is_last;
                    return Some(event);
                }
                Ok(_) => {}
                // Some of the events were missed: it may have ended.
                Err(RecvError::Lagged(_)) => {
                    let (server, id) = (self.server.clone(), self.id.clone());
                    let job = blocking(move || server.store.job(&id)).await;
                    self.is_ended = !matches!(job, Ok(Some(job)) if !job.state.is_ended());
                }
                Err(RecvError::Closed) => self.is_ended = true,
            }
        }
        None
    }

    /// The ended job with the files of its images, once it has ended.
    ///
    /// # Errors
    /// It is gone, or the data base fails.
    pub(super) async fn ended(mut self) -> Answer<(Job, Vec<PathBuf>)> {
        while self.next().await.is_some() {}
        let (server, id) = (self.server.clone(), self.id.clone());
        let job = blocking(move || -> Result<Option<Job>, Error> { server.store.job(&id) }).await?;
        let job = job.ok_or_else(|| ApiError::not_found("job"))?;
        let folder = self.server.folder_of(&job.id).images();
        let files = job.images.iter().map(|image| folder.join(&image.name)).collect();
        Ok((job, files))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // A job whose server stops goes on when it is started again.
        if self.is_ended || self.server.is_stopping() {
            return;
        }
        let (server, id) = (self.server.clone(), self.id.clone());
        // The client has gone away.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = server.cancel(&id) {
                tracing::debug!("the job {id} cannot be cancelled: {error}");
            }
        });
    }
}

fn stopped() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stopped",
        "the server has stopped",
    )
}

/// Whether an ended job has all its images.
///
/// # Errors
/// It has failed, or was cancelled.
pub(super) fn check_done(job: &Job) -> Answer<()> {
    match (job.state, &job.error) {
        (State::Done, _) => Ok(()),
        (State::Cancelled, _) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "cancelled",
            "the job was cancelled",
        )),
        (_, Some(error)) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "generation_failed",
            error.message.clone(),
        )),
        (_, None) => Err(stopped()),
    }
}
