//! [`Events`]: what happens to jobs, for everyone who listens.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::job::{JobId, JobView, MemoryView, PreviewView, Progress};
use crate::running::Running;

/// How many events a listener may be behind. One that is further behind asks for the jobs again.
const BEHIND: usize = 1024;

/// Something that happened to a job.
#[derive(Debug, Clone)]
pub(crate) struct JobEvent {
    /// The job.
    pub(crate) job: JobId,
    /// Whose job it is.
    pub(crate) user: String,
    /// `job`, `progress`, `preview`, `memory` or `removed`.
    pub(crate) kind: &'static str,
    /// What clients are sent.
    pub(crate) data: Arc<Value>,
    /// Whether it is the last of this job.
    pub(crate) is_last: bool,
}

/// Sends events to everyone who listens.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<JobEvent>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }

    /// Everything that happens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<JobEvent> {
        self.0.subscribe()
    }

    /// Whether anyone listens.
    pub(crate) fn are_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// How many listen.
    #[cfg(feature = "cluster")]
    pub(crate) fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    /// The state or the images of a job have changed.
    pub(crate) fn changed(&self, job: &JobView) {
        self.send(&job.id, &job.user, "job", job, job.state.is_ended());
    }

    pub(crate) fn progress(&self, job: &Running, progress: &Progress) {
        self.send(&job.id, &job.user, "progress", progress, false);
    }

    pub(crate) fn preview(&self, job: &Running, preview: &PreviewView) {
        self.send(&job.id, &job.user, "preview", preview, false);
    }

    pub(crate) fn memory(&self, job: &Running, memory: &MemoryView) {
        self.send(&job.id, &job.user, "memory", memory, false);
    }

    pub(crate) fn removed(&self, job: &JobId, user: &str) {
        self.send(job, user, "removed", &json!({}), true);
    }

    fn send(&self, job: &JobId, user: &str, kind: &'static str, data: &impl Serialize, is_last: bool) {
        if !self.are_heard() {
            return;
        }
        let mut data = json!(data);
        data["id"] = json!(job);
        // Nobody may listen any more.
        let _ = self.0.send(JobEvent {
            job: job.clone(),
            user: user.to_owned(),
            kind,
            data: Arc::new(data),
            is_last,
        });
    }
}
