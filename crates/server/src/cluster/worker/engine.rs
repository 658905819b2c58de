//! [`EngineThread`]: the engine of a worker on a thread of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use sd_pipeline::{Engine, Planner};
use tokio::sync::oneshot;

use super::terms;
use crate::cluster::options::WorkerOptions;
use crate::events::Events;
use crate::job::{JobRequest, ResultImage};
use crate::prepare::{JobFolder, Unusable};
use crate::running::Running;
use crate::worker::{JobObserver, generate};

/// A job for the engine.
pub(super) struct EngineJob {
    pub(super) request: JobRequest,
    pub(super) folder: Arc<JobFolder>,
    pub(super) options: Arc<WorkerOptions>,
    pub(super) running: Arc<Running>,
    pub(super) events: Arc<Events>,
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) images: Result<Vec<ResultImage>, Unusable>,
    pub(super) warnings: Vec<String>,
}

/// The engine on its thread, which ends when this is dropped.
pub(super) struct EngineThread(mpsc::Sender<(EngineJob, oneshot::Sender<Outcome>)>);

impl EngineThread {
    /// Begins the thread. After `idle_after` without a job the engine gives back what it has loaded.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn begin(idle_after: Duration) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<(EngineJob, oneshot::Sender<Outcome>)>();
        let work = move || {
            let mut engine = Engine::new().keep_loaded();
            loop {
                match jobs.recv_timeout(idle_after) {
                    Ok((job, reply)) => match catch_unwind(AssertUnwindSafe(|| run(&mut engine, &job))) {
                        // Nobody may wait for the outcome any more.
                        Ok(outcome) => drop(reply.send(outcome)),
                        // The panic has been printed. What it has left in the engine is not used again.
                        Err(_) => engine = Engine::new().keep_loaded(),
                    },
                    Err(RecvTimeoutError::Timeout) => engine.release(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(work)?;
        Ok(Self(sender))
    }

    /// Runs a job. The receiver fails if the run panics.
    pub(super) fn run(&self, job: EngineJob) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        // Without a thread the reply is dropped, and its receiver fails.
        let _ = self.0.send((job, reply));
        outcome
    }
}

fn run(engine: &mut Engine, job: &EngineJob) -> Outcome {
    // Its images are fetched once it has ended.
    let mut observer = JobObserver::new(&job.events, &job.running, None, &|| {});
    let interrupt = &job.running.interrupt;
    let images = generate(
        terms(&job.options, &Planner::default()),
        engine,
        &job.request,
        &job.folder,
        &mut observer,
        interrupt,
    );
    Outcome {
        images,
        warnings: observer.into_warnings(),
    }
}
