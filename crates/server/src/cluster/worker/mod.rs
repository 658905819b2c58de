//! [`work`]: a worker. It pulls jobs from the queue, and runs one at a time.

mod engine;
mod folder;
mod pull;
mod task;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sd_pipeline::Planner;
use sd_pipeline::bundle::Kind;

use super::connection::Connection;
use super::error::{ClusterError, Result};
use super::options::WorkerOptions;
use super::results::Results;
use super::subject::{MemoryClass, Route};
use crate::http::here;
use crate::job::{JobId, JobRequest};
use crate::options::Limits;
use crate::prepare::{self, JobFolder, Terms, Unusable};
use engine::EngineThread;
use folder::WorkFolder;
use pull::Puller;
use task::Task;

/// The shortest and the longest pause before the queue is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How often it is looked whether the worker is to stop.
const TICK: Duration = Duration::from_millis(100);
/// The front end has checked each job. A worker takes all.
const LIMITS: Limits = Limits {
    images: u64::MAX,
    side: usize::MAX,
    steps: u64::MAX,
    prompt: usize::MAX,
    body: 0,
    bodies: 0,
    upload: 0,
    uploads: 0,
    waiting: 0,
    connections: 0,
    per_minute: None,
};

/// What a worker runs jobs with.
struct Worker {
    id: JobId,
    options: Arc<WorkerOptions>,
    folder: WorkFolder,
    engine: EngineThread,
}

/// What the worker can run: its models, and the jobs that fit into its budget.
fn routes(options: &WorkerOptions, folder: &WorkFolder) -> Result<Vec<Route>> {
    let no_work = |reason: String| ClusterError::NoWork { reason };
    let planner = Planner::default();
    let terms = terms(options, &planner);
    let models = match &options.models {
        Some(models) => models.clone(),
        None => here(&terms.catalog(), Kind::Model),
    };
    if models.is_empty() {
        return Err(no_work("it has no model".to_owned()));
    }
    // The budget of any job is that of one of the built-in model, which is always here.
    let any = JobRequest {
        prompt: "budget".to_owned(),
        model: Some("demo".to_owned()),
        ..JobRequest::default()
    };
    let all = Terms {
        models: None,
        ..terms
    };
    let planned = prepare::request(&any, &JobFolder::new(folder.path().join("budget")), all)
        .and_then(|request| all.planned(&request));
    let budget = planned
        .map_err(|unusable| no_work(message(&unusable)))?
        .plan
        .budget;
    let classes = MemoryClass::within(budget.0);
    let routes = models.iter().flat_map(|model| {
        let route = |class: &MemoryClass| Route {
            model: model.clone(),
            class: *class,
        };
        classes.iter().map(route)
    });
    Ok(routes.collect())
}

fn terms<'a>(options: &'a WorkerOptions, planner: &'a Planner) -> Terms<'a> {
    Terms {
        configuration: &options.configuration,
        models: options.models.as_deref(),
        limits: &LIMITS,
        planner,
    }
}

fn message(unusable: &Unusable) -> String {
    crate::job::JobError::from(unusable).message
}

/// Runs jobs of the queue until `is_stopped` says so. `ready` is called with the names of the models once jobs are
/// pulled. The job that runs at the end is given back, and another worker goes on with it.
///
/// # Errors
/// The worker can run nothing, or its folder or its credentials cannot be used. While the queue cannot be reached, it is
/// tried again.
pub fn work(
    options: WorkerOptions,
    ready: impl Fn(&[String]),
    is_stopped: impl Fn() -> bool,
) -> crate::Result<()> {
    let id = JobId::random()?;
    let folder = WorkFolder::make(&options.folder, &id)?;
    let routes = routes(&options, &folder)?;
    let mut models: Vec<String> = routes.iter().map(|route| route.model.clone()).collect();
    models.dedup();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(crate::Error::Thread)?;
    let engine = EngineThread::begin(options.idle_after).map_err(crate::Error::Thread)?;
    let mut worker = Worker {
        id,
        options: Arc::new(options),
        folder,
        engine,
    };
    runtime.block_on(async {
        let mut pause = PAUSES.0;
        while !is_stopped() {
            let ended = worker.serve(&routes, &is_stopped, || ready(&models)).await;
            match ended {
                Ok(()) => return Ok(()),
                Err(error @ (ClusterError::Credentials { .. } | ClusterError::Place { .. })) => {
                    return Err(error.into());
                }
                Err(error) => tracing::warn!("{error}"),
            }
            until_stopped(&is_stopped, tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Ok(())
    })
}

impl Worker {
    /// Connects, and runs jobs until the worker stops.
    async fn serve(
        &mut self,
        routes: &[Route],
        is_stopped: &impl Fn() -> bool,
        ready: impl FnOnce(),
    ) -> Result<()> {
        let connection = Connection::open(&self.options.queue, "sd-generate worker").await?;
        let results = Results::open(self.options.queue.results.as_deref(), &connection).await?;
        let mut puller = Puller::open(&connection, routes).await?;
        ready();
        let mut pause = PAUSES.0;
        while !is_stopped() {
            let pulled = match until_stopped(is_stopped, puller.next()).await {
                None => break,
                Some(Ok(None)) => continue,
                Some(Ok(Some(message))) => {
                    let task = Task {
                        worker: self,
                        connection: &connection,
                        results: &results,
                    };
                    task.run(message, is_stopped).await
                }
                Some(Err(error)) => Err(error),
            };
            match pulled {
                Ok(()) => pause = PAUSES.0,
                Err(error) => {
                    tracing::warn!("{error}");
                    until_stopped(is_stopped, tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(PAUSES.1);
                    // The consumers may be gone with the disk of the server.
                    if connection.is_connected() && puller.renew(&connection).await.is_err() {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What `work` results in, or nothing if the worker is to stop before.
async fn until_stopped<T>(is_stopped: &impl Fn() -> bool, work: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        while !is_stopped() {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        done = work => Some(done),
        () = stopped => None,
    }
}
