//! What whoever starts a front end or a worker decides about the queue.

use std::path::PathBuf;
use std::time::Duration;

use sd_catalog::Configuration;

/// Where the queue is, and where results are stored.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// The address of a NATS server, or several with commas between them: `nats://HOST`, or `tls://HOST`.
    pub address: String,
    /// A file of credentials (NATS's `.creds`).
    pub credentials: Option<PathBuf>,
    /// A folder or `s3://BUCKET/PREFIX`. Without it, results are in the object store of the queue.
    pub results: Option<String>,
    /// Whether images stay in the store of results once the front end has fetched them.
    pub keeps_results: bool,
}

/// What whoever starts a worker decides.
#[derive(Debug)]
pub struct WorkerOptions {
    /// The queue.
    pub queue: QueueOptions,
    /// The folder for jobs that run.
    pub folder: PathBuf,
    /// The only models that it runs. Without them, all that are on this machine.
    pub models: Option<Vec<String>>,
    /// The user's configuration.
    pub configuration: Configuration,
    /// After how long without a job what is loaded is given back.
    pub idle_after: Duration,
}
