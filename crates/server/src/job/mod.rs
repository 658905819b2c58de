//! Jobs: what a client asks for, the images that it sends, and what becomes of it.

mod id;
mod images;
mod request;
mod view;

pub(crate) use id::JobId;
pub(crate) use images::{InputError, Inputs, decoded};
pub(crate) use request::{ControlRequest, ImageField, Invalid, JobRequest, SeedField};
pub(crate) use view::{JobView, MemoryView, PlanView, PreviewView, Progress, ResultImage};

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It waits for its turn.
    Queued,
    /// It runs, or ran when the server stopped.
    Running,
    /// Its images are saved.
    Done,
    /// It failed.
    Failed,
    /// Someone cancelled it.
    Cancelled,
}

impl State {
    pub(crate) const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing more becomes of it.
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Why a job failed, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobError {
    /// One word for programs.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl JobError {
    /// An error without a hint.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// The run has panicked.
    pub(crate) fn bug() -> Self {
        Self::new("bug", "the program has a bug; its log says more")
    }
}

/// A job as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// Whose turn it takes.
    pub(crate) user: String,
    /// Jobs of a higher one go first.
    pub(crate) priority: i32,
    pub(crate) state: State,
    /// The name of its model, which decides what stays loaded.
    pub(crate) model: String,
    /// Milliseconds since 1970.
    pub(crate) created: i64,
    pub(crate) started: Option<i64>,
    pub(crate) finished: Option<i64>,
    pub(crate) request: JobRequest,
    pub(crate) plan: Option<PlanView>,
    pub(crate) images: Vec<ResultImage>,
    pub(crate) warnings: Vec<String>,
    pub(crate) error: Option<JobError>,
}
