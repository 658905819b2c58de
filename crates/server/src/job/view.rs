//! [`JobView`]: a job as clients see it, and what they are told while it runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Job, JobError, JobId, JobRequest, State};

/// What is known of the memory and the time of a job before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanView {
    /// The predicted peak, in bytes.
    pub(crate) predicted_peak: u64,
    /// The budget, in bytes.
    pub(crate) budget: u64,
    /// The smallest budget that it fits into, in bytes.
    #[serde(default)]
    pub(crate) smallest_budget: u64,
    /// How long it will take about, if that is known.
    pub(crate) seconds: Option<f64>,
    /// Whether weights are streamed.
    pub(crate) streams: bool,
}

/// An image of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResultImage {
    /// The name of its file in the folder of the job.
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// How far the running job has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The stage: `encode`, `load`, `denoise`, `decode` and so on.
    pub(crate) stage: String,
    /// Which image, from 0.
    pub(crate) image: usize,
    pub(crate) images: usize,
    /// Finished steps of this image.
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// Finished steps of all images, as a part of all steps.
    pub(crate) fraction: f64,
    /// At the pace of the last steps.
    pub(crate) seconds_left: Option<f64>,
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

/// A job as clients see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JobView {
    pub(crate) id: JobId,
    pub(crate) state: State,
    /// Its place in the queue, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<usize>,
    pub(crate) user: String,
    pub(crate) priority: i32,
    pub(crate) created: String,
    pub(crate) started: Option<String>,
    pub(crate) finished: Option<String>,
    pub(crate) seconds: Option<f64>,
    pub(crate) request: JobRequest,
    pub(crate) plan: Option<PlanView>,
    pub(crate) progress: Option<Progress>,
    pub(crate) images: Vec<ImageView>,
    pub(crate) warnings: Vec<String>,
    pub(crate) error: Option<JobError>,
}

/// An image, with the address to fetch it from.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImageView {
    pub(crate) url: String,
    #[serde(flatten)]
    pub(crate) image: ResultImage,
}

impl JobView {
    pub(crate) fn new(job: Job, position: Option<usize>, progress: Option<Progress>) -> Self {
        let seconds = job.started.zip(job.finished);
        let images = job
            .images
            .into_iter()
            .enumerate()
            .map(|(index, image)| ImageView {
                url: format!("/api/jobs/{}/images/{index}", job.id),
                image,
            });
        Self {
            state: job.state,
            position,
            user: job.user,
            priority: job.priority,
            created: written(job.created),
            started: job.started.map(written),
            finished: job.finished.map(written),
            seconds: seconds.map(|(started, finished)| (finished - started) as f64 / 1000.0),
            request: job.request,
            plan: job.plan,
            progress,
            images: images.collect(),
            warnings: job.warnings,
            error: job.error,
            id: job.id,
        }
    }
}

/// Milliseconds since 1970 as `2026-05-04T03:02:01.5Z`.
fn written(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| String::new(), |time| time.to_string())
}
