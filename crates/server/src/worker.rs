//! The thread that runs jobs: one after another, on one [`Engine`].

mod observer;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_pipeline::bundle::Kind;
use sd_pipeline::resume::{ClaimedRun, interrupted_runs};
use sd_pipeline::source_image::SourceImage;
use sd_pipeline::{Engine, Interrupt, ModelChoice, Observer, SavedImage};

use crate::error::is_of_storage;
use crate::job::{Job, JobError, JobRequest, ResultImage, State};
use crate::lock::lock;
use crate::prepare::{self, JobFolder, Terms, Unusable};
use crate::queue::{Turns, Waiting};
use crate::retention::bytes_in;
use crate::running::Running;
use crate::server::Server;
use crate::store::now;
pub(crate) use observer::JobObserver;

/// How long the worker waits where the disk cannot be written, before it tries again.
const BETWEEN_TRIES: Duration = Duration::from_secs(3);

/// The engine of the jobs. A plan of a submission builds no tokenizer that it has.
fn engine(server: &Server) -> Engine {
    Engine::new().keep_loaded().sharing_tokenizers(&server.planner)
}

/// Runs jobs until the server stops.
pub(crate) fn work(server: &Arc<Server>) {
    let mut engine = engine(server);
    let mut turns = Turns::default();
    let mut idle_since = Instant::now();
    let mut is_loaded = false;
    while !server.is_stopping() {
        match next(server, &turns) {
            Ok(Some(waiting)) => {
                turns.taken(&waiting);
                match run(server, &mut engine, &waiting) {
                    Err(error) if !server.is_stopping() => stalled(server, &error),
                    _ => {}
                }
                server.note_loaded(&engine);
                (is_loaded, idle_since) = (true, Instant::now());
            }
            Ok(None) => {
                if !is_loaded && server.planner.is_loaded() {
                    // Someone has planned a job without submitting it.
                    (is_loaded, idle_since) = (true, Instant::now());
                }
                let idle_for = idle_since.elapsed();
                if is_loaded && idle_for >= server.options.idle_after {
                    engine.release();
                    turns.unloaded();
                    is_loaded = false;
                }
                server.note_loaded(&engine);
                let left = server.options.idle_after.saturating_sub(idle_for);
                server.wait_for_work(is_loaded.then_some(left));
                // What is loaded is given back when someone asks for it, or when the machine is short of memory.
                if server.takes_release() {
                    engine.release();
                    turns.unloaded();
                    is_loaded = false;
                }
                server.note_loaded(&engine);
            }
            Err(error) => stalled(server, &error),
        }
    }
}

fn next(server: &Server, turns: &Turns) -> crate::Result<Option<Waiting>> {
    let waiting = server.store.waiting()?;
    server.set_stalled(None);
    Ok(turns.next(&waiting, now()).cloned())
}

/// Waits a while. The jobs stay in the queue.
fn stalled(server: &Server, error: &crate::Error) {
    tracing::warn!("the queue waits: {error}");
    server.set_stalled(Some(error.to_string()));
    server.wait_for_work(Some(BETWEEN_TRIES));
}

/// Runs a job, and writes what became of it.
///
/// # Errors
/// The data base fails. The job is still in the queue then, and its run goes on where it was.
fn run(server: &Arc<Server>, engine: &mut Engine, waiting: &Waiting) -> crate::Result<()> {
    let Some((mut job, running)) = begin(server, waiting)? else {
        // It was cancelled meanwhile.
        return Ok(());
    };
    let executed = catch_unwind(AssertUnwindSafe(|| execute(server, engine, &mut job, &running)));
    let outcome = executed.unwrap_or_else(|_| {
        // The panic has been printed. What it has left in the engine is not used again.
        *engine = self::engine(server);
        end(&mut job, State::Failed);
        job.error = Some(JobError::bug());
        Ok(bytes_in(server.folder_of(&job.id).path()))
    });
    if outcome.is_err() {
        // It waits again, at its place.
        (job.state, job.started) = (State::Queued, None);
    }
    if job.state.is_ended() {
        if job.state != State::Done {
            // What it has finished is kept.
            job.images.clone_from(&lock(&running.images));
        }
        // Its images, and those that came with it, are all that is still needed.
        remove(&server.folder_of(&job.id).state());
    }
    keep_trying(server, &mut job, &running, outcome.as_ref().copied().unwrap_or(0));
    if job.state.is_ended() {
        server.finished(&job);
        // Whoever waits for the job has been told: only the next job waits for the disk.
        server.store.sync()?;
    }
    outcome.map(drop)
}

/// Begins a job, if it still waits.
fn begin(server: &Server, waiting: &Waiting) -> crate::Result<Option<(Job, Arc<Running>)>> {
    let changing = server.changing();
    let Some(job) = server.store.begin(&waiting.id, now())? else {
        return Ok(None);
    };
    let running = Running::new(job.id.clone(), job.user.clone());
    server.begin_running(running.clone());
    server.changed(&job);
    drop(changing);
    if server.is_stopping() {
        // The server has looked for a running job before there was this one.
        running.interrupt.raise();
    }
    Ok(Some((job, running)))
}

fn end(job: &mut Job, state: State) {
    job.state = state;
    job.finished = Some(now());
}

/// Writes what became of the running job, again and again if the disk cannot be written, until the server stops. After
/// that the job is as it was when it began, and its run goes on where it was.
fn keep_trying(server: &Server, job: &mut Job, running: &Running, bytes: u64) {
    loop {
        let changing = server.changing();
        if job.state == State::Queued && running.is_cancelled() {
            end(job, State::Cancelled);
        }
        let written = server.store.update_unsynced(job, bytes);
        if written.is_ok() || server.is_stopping() {
            server.end_running(&job.id);
        }
        let Err(error) = written else {
            server.changed(job);
            return server.set_stalled(None);
        };
        drop(changing);
        tracing::warn!("a job cannot be written yet: {error}");
        server.set_stalled(Some(error.to_string()));
        if server.is_stopping() {
            return;
        }
        server.wait_for_work(Some(BETWEEN_TRIES));
    }
}

/// Generates the images of a job, which then has its last state, and returns the bytes of the images.
///
/// # Errors
/// The disk is full or cannot be written, or the server stops. The job goes on later.
fn execute(
    server: &Arc<Server>,
    engine: &mut Engine,
    job: &mut Job,
    running: &Arc<Running>,
) -> crate::Result<u64> {
    let folder = server.folder_of(&job.id);
    let budget = job.plan.as_ref().map(|plan| plan.budget);
    let saved = || server.changed(job);
    let mut observer = JobObserver::new(&server.events, running, budget, &saved);
    let outcome = generate(
        server.terms(),
        engine,
        &job.request,
        &folder,
        &mut observer,
        &running.interrupt,
    );
    job.warnings = observer.into_warnings();
    match outcome {
        Ok(images) => {
            job.images = images;
            end(job, State::Done);
        }
        Err(Unusable::Pipeline(sd_pipeline::Error::Interrupted)) if !running.is_cancelled() => {
            return Err(crate::Error::Stopped(std::io::Error::other("the server stops")));
        }
        Err(Unusable::Pipeline(sd_pipeline::Error::Interrupted)) => end(job, State::Cancelled),
        Err(unusable) => {
            if let Some(error) = unusable.of_storage(folder.path()) {
                return Err(error);
            }
            end(job, State::Failed);
            job.error = Some(JobError::from(&unusable));
        }
    }
    Ok(bytes_in(&folder.images()) + bytes_in(folder.inputs().folder()))
}

/// Goes on with the interrupted run of the job, if it has one, or begins anew.
///
/// # Errors
/// The job cannot be run, fails, or is interrupted.
pub(crate) fn generate(
    terms: Terms<'_>,
    engine: &mut Engine,
    job: &JobRequest,
    folder: &JobFolder,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<ResultImage>, Unusable> {
    let user_dirs = folder.user_dirs();
    let interrupted = interrupted_runs(&user_dirs).map_err(Unusable::Pipeline)?;
    for run in interrupted {
        // One that cannot be resumed is begun again.
        let Ok(claimed) = ClaimedRun::claim(&user_dirs, &run.id) else {
            continue;
        };
        let Some(models) = models(terms, &claimed) else {
            continue;
        };
        // It may have begun on another machine, in a folder of another name.
        let claimed = claimed
            .with_output(&folder.images())
            .with_source_images(folder.inputs().folder());
        match engine.resume(claimed, models, &user_dirs, observer, interrupt) {
            Ok(saved) => return Ok(saved.iter().map(result_image).collect()),
            Err(error @ sd_pipeline::Error::Interrupted) => return Err(Unusable::Pipeline(error)),
            Err(error) => {
                let error = Unusable::Pipeline(error);
                if error.of_storage(folder.path()).is_some() {
                    // Once it can be written again, the run goes on where it was.
                    return Err(error);
                }
                tracing::debug!("a run is begun again: {error:?}");
            }
        }
    }
    remove(&folder.state());
    remove(&folder.images());
    let request = prepare::request(job, folder, terms)?;
    let saved = engine
        .run(&request, observer, interrupt)
        .map_err(Unusable::Pipeline)?;
    Ok(saved.iter().map(result_image).collect())
}

/// The models of an interrupted run, if they are still here.
fn models(terms: Terms<'_>, claimed: &ClaimedRun) -> Option<Vec<ModelChoice>> {
    let catalog = terms.catalog();
    let model = |(name, folder): (&str, Option<&Path>)| {
        if folder.is_some() {
            catalog.locate(Kind::Model, name).ok()?;
        }
        sd_catalog::model_of_run(name, folder).ok()
    };
    claimed.models().into_iter().map(model).collect()
}

impl Unusable {
    /// The failure of the disk that it is, if it is one.
    pub(crate) fn of_storage(&self, folder: &Path) -> Option<crate::Error> {
        let Self::Pipeline(error) = self else {
            return None;
        };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(source) = error.downcast_ref::<std::io::Error>()
                && is_of_storage(source)
            {
                return Some(crate::Error::Folder {
                    path: folder.to_owned(),
                    source: std::io::Error::new(source.kind(), source.to_string()),
                });
            }
            next = error.source();
        }
        None
    }
}

impl From<&Unusable> for JobError {
    fn from(unusable: &Unusable) -> Self {
        let code = match unusable {
            Unusable::Invalid(_) => "invalid_request",
            Unusable::Catalog(_) => "not_found",
            Unusable::Pipeline(
                sd_pipeline::Error::BudgetTooSmall { .. } | sd_pipeline::Error::TooLittleLeft { .. },
            ) => "does_not_fit",
            Unusable::Pipeline(_) => "failed",
        };
        Self {
            code: code.to_owned(),
            message: unusable.to_string(),
            hint: unusable.hint(),
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!("`{}` cannot be removed: {error}", folder.display());
    }
}

/// A saved image, with the size that its file has: it may have been upscaled.
fn result_image(saved: &SavedImage) -> ResultImage {
    let sides = SourceImage::open(&saved.image).map(|image| image.sides());
    let (width, height) = sides.unwrap_or_default();
    ResultImage {
        name: saved.file_name().to_string_lossy().into_owned(),
        seed: saved.seed,
        width,
        height,
    }
}
