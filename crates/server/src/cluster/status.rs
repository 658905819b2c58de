//! [`Status`]: what becomes of a job, in the bucket that front ends and workers share; and [`JobMessage`], the job.

use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use async_nats::jetstream::message::PublishMessage;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::error::{ClusterError, Result};
use super::subject::JobKey;
use crate::job::{JobError, JobId, JobRequest, ResultImage, State};

/// A job as workers get it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobMessage {
    pub(crate) key: JobKey,
    pub(crate) user: String,
    pub(crate) model: String,
    pub(crate) request: JobRequest,
    /// The names of its source images, which are objects.
    pub(crate) inputs: Vec<String>,
}

/// What becomes of a job. Its end is written by a worker, or by the front end if it was cancelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Queued until a worker has it.
    pub(crate) state: State,
    /// The subject of its message.
    pub(crate) subject: String,
    /// The worker that runs it.
    #[serde(default)]
    pub(crate) worker: Option<JobId>,
    /// How many workers have begun it since the last state of its run.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// When it began first, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) started: Option<i64>,
    /// The files of its run, which are objects.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    #[serde(default)]
    pub(crate) images: Vec<ResultImage>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// Why it failed, or why the last worker gave it back.
    #[serde(default)]
    pub(crate) error: Option<JobError>,
}

impl Status {
    pub(crate) fn queued(subject: String) -> Self {
        Self {
            state: State::Queued,
            subject,
            worker: None,
            attempts: 0,
            started: None,
            files: Vec::new(),
            images: Vec::new(),
            warnings: Vec::new(),
            error: None,
        }
    }

    pub(crate) fn failed(self, error: JobError) -> Self {
        Self {
            state: State::Failed,
            error: Some(error),
            ..self
        }
    }

    /// The status in `value`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(key: &str, value: &[u8]) -> Result<Self> {
        serde_json::from_slice(value).map_err(|error| ClusterError::Unreadable {
            name: key.to_owned(),
            reason: error.to_string(),
        })
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Connection {
    /// Adds a job to the stream.
    ///
    /// # Errors
    /// The queue fails, or the job is there.
    pub(crate) async fn publish(&self, subject: &str, id: &str, message: &JobMessage) -> Result<()> {
        let failed = "add a job";
        let payload = serde_json::to_vec(message).map_err(ClusterError::queue(failed))?;
        let message = PublishMessage::build().payload(payload.into()).message_id(id);
        let sent = self.context.send_publish(subject.to_owned(), message).await;
        let acknowledged = sent.map_err(ClusterError::queue(failed))?.await;
        acknowledged.map(drop).map_err(ClusterError::queue(failed))
    }

    /// The status of a job with its revision. It has none once its front end is done with it.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn status(&self, key: &JobKey) -> Result<Option<(Status, u64)>> {
        let name = key.to_string();
        let entry = self.statuses.entry(&name).await;
        let entry = entry.map_err(ClusterError::queue("read a status"))?;
        entry
            .filter(|entry| entry.operation == Operation::Put)
            .map(|entry| Ok((Status::parse(&name, &entry.value)?, entry.revision)))
            .transpose()
    }

    /// Writes the first status of a job, and returns whether it had none.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn create_status(&self, key: &JobKey, status: &Status) -> Result<bool> {
        match self.write_status(key, status, 0).await {
            Ok(_) => Ok(true),
            Err(ClusterError::Lost) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the status of a job over that of `revision`, and returns its own.
    ///
    /// # Errors
    /// Another has written it meanwhile ([`ClusterError::Lost`]), or the queue fails.
    pub(crate) async fn write_status(&self, key: &JobKey, status: &Status, revision: u64) -> Result<u64> {
        let (name, bytes) = (key.to_string(), status.bytes());
        let written = self.statuses.update(&name, bytes.clone().into(), revision).await;
        match written {
            Ok(revision) => Ok(revision),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                // The answer to an earlier try may have been lost.
                let entry = self.statuses.entry(&name).await;
                let entry = entry.map_err(ClusterError::queue("read a status"))?;
                entry
                    .filter(|entry| entry.value == bytes)
                    .map(|entry| entry.revision)
                    .ok_or(ClusterError::Lost)
            }
            Err(error) => Err(ClusterError::queue("write a status")(error)),
        }
    }

    /// Removes the status of a job, without a trace.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn remove_status(&self, key: &JobKey) -> Result<()> {
        let Some((_, revision)) = self.status(key).await? else {
            return Ok(());
        };
        let removed = self.statuses.stream.delete_message(revision).await;
        removed.map(drop).map_err(ClusterError::queue("remove a status"))
    }
}

/// The objects of the image `index` of a job, which are the same whoever generates it: the image, and its metadata.
pub(crate) fn result_names(key: &JobKey, index: usize, image: &ResultImage) -> (String, String) {
    let extension = image
        .name
        .rsplit_once('.')
        .map_or("png", |(_, extension)| extension);
    (
        key.object(&format!("{index}.{extension}")),
        key.object(&format!("{index}.json")),
    )
}

/// Whether `name` is that of a file in the folder of images, and of nothing beside it.
pub(crate) fn is_image_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("png" | "jpg" | "webp"))
        && !name.contains(['/', '\\', ':'])
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_lead_nowhere_else() {
        assert!(is_image_name("2026-05-04_03-02-01_001.png"));
        for name in [
            "", "png", "../a.png", "a/b.png", "a\\b.png", "C:a.png", ".png", "a.sh",
        ] {
            assert!(!is_image_name(name), "{name}");
        }
    }

    #[test]
    fn a_status_is_read_as_it_is_written() {
        let status = Status::queued("sd.jobs.demo.1g.a.b".to_owned());
        let failed = status.failed(JobError::new("failed", "no"));
        let read = Status::parse("key", &failed.bytes()).unwrap();
        assert_eq!((read.state, read.error), (State::Failed, failed.error));
        assert!(matches!(
            Status::parse("key", b"{}"),
            Err(ClusterError::Unreadable { .. })
        ));
    }
}
