//! [`Events`]: what happens to jobs, for everyone who listens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::job::{JobId, JobView, Progress};

/// How many events a listener may be behind. One that is further behind asks for the jobs again.
const BEHIND: usize = 1024;

/// Something that happened to a job.
#[derive(Debug, Clone)]
pub(crate) struct JobEvent {
    /// The job.
    pub(crate) job: JobId,
    /// `job`, `progress`, `preview`, `memory` or `removed`.
    pub(crate) kind: &'static str,
    /// What clients are sent.
    pub(crate) data: Arc<Value>,
    /// Whether it is the last of this job.
    pub(crate) is_last: bool,
}

/// A small image of what a job is expected to become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PreviewView {
    pub(crate) image: usize,
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// A PNG, in base64.
    pub(crate) png: String,
}

/// The memory at one moment of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemoryView {
    /// Seconds since the job began to run.
    pub(crate) at: f64,
    /// Bytes of this process.
    pub(crate) process: u64,
    /// Bytes that the job may take.
    pub(crate) budget: Option<u64>,
    /// Bytes in use on the GPU, if it has memory of its own.
    pub(crate) device: Option<u64>,
    /// The point of the run.
    pub(crate) stage: String,
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
        self.send(&job.id, "job", json!(job), job.state.is_ended());
    }

    pub(crate) fn progress(&self, job: &JobId, progress: &Progress) {
        self.send(job, "progress", json!(progress), false);
    }

    pub(crate) fn preview(&self, job: &JobId, preview: &PreviewView) {
        self.send(job, "preview", json!(preview), false);
    }

    pub(crate) fn memory(&self, job: &JobId, memory: &MemoryView) {
        self.send(job, "memory", json!(memory), false);
    }

    pub(crate) fn removed(&self, job: &JobId) {
        self.send(job, "removed", json!({}), true);
    }

    fn send(&self, job: &JobId, kind: &'static str, mut data: Value, is_last: bool) {
        if !self.are_heard() {
            return;
        }
        data["id"] = json!(job);
        // Nobody may listen any more.
        let _ = self.0.send(JobEvent {
            job: job.clone(),
            kind,
            data: Arc::new(data),
            is_last,
        });
    }
}
