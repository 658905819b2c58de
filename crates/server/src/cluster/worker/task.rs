//! [`Task`]: one job from its message to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::sync::broadcast;

use super::engine::{EngineJob, Outcome};
use super::{TICK, Worker};
use crate::cluster::connection::Connection;
use crate::cluster::dispatcher::event_json;
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::files::StoredRun;
use crate::cluster::results::Results;
use crate::cluster::status::{JobMessage, Status, result_names};
use crate::cluster::subject::{JobKey, MemoryClass, Route};
use crate::events::{Events, JobEvent};
use crate::job::{JobError, ResultImage, State};
use crate::prepare::{JobFolder, Unusable};
use crate::running::Running;
use crate::store::now;

/// The most workers that begin a job without any progress.
const MOST_ATTEMPTS: u32 = 5;
/// How often the queue is told that the job goes on.
const BETWEEN_SIGNS: Duration = Duration::from_secs(4);
/// How often the state of the run is stored, if it has changed.
const BETWEEN_STORES: Duration = Duration::from_secs(3);
/// The least time between two previews.
const BETWEEN_PREVIEWS: Duration = Duration::from_secs(1);
/// How long previews are sent after someone was said to watch.
const WATCHED_FOR: Duration = Duration::from_secs(12);
/// The longest part of its time in which a worker stores states, as one over this.
const STORING: u32 = 30;
/// How long a job that was given back waits.
const PAUSE: Duration = Duration::from_secs(5);
/// How often what cannot be written is tried again, before the job is given back.
const TRIES: u32 = 5;

/// What one job is run with.
pub(super) struct Task<'a> {
    pub(super) worker: &'a Worker,
    pub(super) connection: &'a Connection,
    pub(super) results: &'a Results,
}

/// A job that this worker has claimed.
struct Claimed {
    job: JobMessage,
    message: Message,
    status: Status,
    revision: u64,
    folder: Arc<JobFolder>,
    stored: StoredRun,
}

/// Why a run ended.
enum Ended {
    Finished(Outcome),
    /// The worker stops.
    Stopped,
    /// The job was cancelled, or its front end is done with it.
    Cancelled,
    /// Another worker has it.
    Lost,
}

impl Task<'_> {
    /// Runs the job of `message`.
    ///
    /// # Errors
    /// The queue fails. The job is delivered again then.
    pub(super) async fn run(&self, message: Message, is_stopped: &impl Fn() -> bool) -> Result<()> {
        let Some(mut claimed) = self.claim(message).await? else {
            return Ok(());
        };
        let outcome = match self.fetch(&mut claimed).await {
            Ok(()) => self.watch(&mut claimed, is_stopped).await,
            Err(error) => self.give_back(&mut claimed, &error).await,
        };
        // Nothing in it is needed any more.
        let _ = std::fs::remove_dir_all(claimed.folder.path());
        match outcome {
            // Whoever has the job acknowledges it.
            Err(ClusterError::Lost) => Ok(()),
            outcome => outcome,
        }
    }

    /// Writes that this worker runs the job, unless there is nothing to run any more.
    async fn claim(&self, message: Message) -> Result<Option<Claimed>> {
        let Ok(job) = serde_json::from_slice::<JobMessage>(&message.payload) else {
            tracing::warn!("`{}` in the queue is no job", message.subject);
            acknowledge(&message).await?;
            return Ok(None);
        };
        let Some((status, revision)) = self.connection.status(&job.key).await? else {
            // Its front end is done with it.
            acknowledge(&message).await?;
            return Ok(None);
        };
        if status.state.is_ended() {
            acknowledge(&message).await?;
            return Ok(None);
        }
        if status.attempts >= MOST_ATTEMPTS {
            let last = status
                .error
                .as_ref()
                .map_or_else(String::new, |error| format!(": {}", error.message));
            let reason = format!("{MOST_ATTEMPTS} workers have begun it, and none came any further{last}");
            let error = JobError::new("failed", reason);
            self.connection
                .write_status(&job.key, &status.failed(error), revision)
                .await?;
            acknowledge(&message).await?;
            return Ok(None);
        }
        let status = Status {
            state: State::Running,
            worker: Some(self.worker.id.clone()),
            attempts: status.attempts + 1,
            started: status.started.or_else(|| Some(now())),
            ..status
        };
        let revision = self.connection.write_status(&job.key, &status, revision).await?;
        tracing::info!(job = %job.key.job, attempt = status.attempts, "begins");
        Ok(Some(Claimed {
            folder: Arc::new(self.worker.folder.of_job(&job.key.job)?),
            job,
            message,
            status,
            revision,
            stored: StoredRun::default(),
        }))
    }

    /// Fetches the source images of a job, and what earlier workers have stored of its run.
    async fn fetch(&self, claimed: &mut Claimed) -> Result<()> {
        let Claimed {
            job, status, folder, ..
        } = &*claimed;
        for input in &job.inputs {
            self.connection.fetch_file(&job.key, folder, input).await?;
        }
        for file in &status.files {
            self.connection.fetch_file(&job.key, folder, file).await?;
        }
        claimed.stored.note(&claimed.folder);
        Ok(())
    }

    /// Runs a job on the engine, with signs of life to the queue, and writes its end.
    async fn watch(&self, claimed: &mut Claimed, is_stopped: &impl Fn() -> bool) -> Result<()> {
        let key = claimed.job.key.clone();
        let running = Running::new(key.job.clone(), claimed.job.user.clone());
        let events = Arc::new(Events::new());
        let mut heard = events.listen();
        let cancelled = self.connection.client.subscribe(key.cancel()).await;
        let mut cancelled = cancelled.map_err(ClusterError::queue("listen"))?;
        let mut outcome = self.worker.engine.run(EngineJob {
            request: claimed.job.request.clone(),
            folder: claimed.folder.clone(),
            options: self.worker.options.clone(),
            running: running.clone(),
            events,
        });
        let mut signs = ticks(BETWEEN_SIGNS);
        let mut stores = ticks(BETWEEN_STORES);
        let mut stops = ticks(TICK);
        let watches = self.connection.client.subscribe(key.watch()).await;
        let mut watches = watches.map_err(ClusterError::queue("listen"))?;
        let mut previews = Previews::default();
        // Once the run is asked to end, for which reason.
        let mut ending: Option<Ended> = None;
        let finished = loop {
            let reason = tokio::select! {
                finished = &mut outcome => break finished,
                event = heard.recv() => {
                    self.forward(&key, event, &mut previews).await;
                    None
                }
                Some(_) = cancelled.next() => Some(Ended::Cancelled),
                Some(_) = watches.next() => {
                    previews.watched = Some(Instant::now());
                    None
                }
                _ = signs.tick() => self.sign(claimed).await,
                _ = stores.tick() => {
                    let begin = Instant::now();
                    let reason = self.store(claimed).await;
                    // A queue that is slow is asked less often.
                    stores.reset_after(BETWEEN_STORES.max(begin.elapsed() * STORING));
                    reason
                }
                _ = stops.tick() => is_stopped().then_some(Ended::Stopped),
            };
            if let Some(reason) = reason
                && ending.is_none()
            {
                running.interrupt.raise();
                ending = Some(reason);
            }
        };
        let Ok(finished) = finished else {
            // The run has panicked, as it would on any worker.
            return self.conclude(claimed, State::Failed, Some(JobError::bug())).await;
        };
        let is_interrupted = matches!(
            finished.images,
            Err(Unusable::Pipeline(sd_pipeline::Error::Interrupted))
        );
        match ending {
            Some(ended) if is_interrupted => self.end(claimed, ended).await,
            _ => self.end(claimed, Ended::Finished(finished)).await,
        }
    }

    /// Tells the queue that the job goes on, and looks whether it is still this worker's.
    async fn sign(&self, claimed: &Claimed) -> Option<Ended> {
        let sign = claimed.message.ack_with(AckKind::Progress).await;
        if let Err(error) = sign {
            tracing::debug!("the queue does not know that the job goes on: {error}");
        }
        match self.connection.status(&claimed.job.key).await {
            Err(error) => {
                tracing::debug!("it is not known whether the job was cancelled: {error}");
                None
            }
            Ok(None) => Some(Ended::Cancelled),
            // An answer can be older than what was written here.
            Ok(Some((_, revision))) if revision <= claimed.revision => None,
            Ok(Some((status, _))) if status.state.is_ended() => Some(Ended::Cancelled),
            Ok(Some(_)) => Some(Ended::Lost),
        }
    }

    /// Stores the state of the run, if it has changed, so that another worker could go on from it.
    async fn store(&self, claimed: &mut Claimed) -> Option<Ended> {
        let Claimed {
            stored, folder, job, ..
        } = claimed;
        match stored.update(self.connection, &job.key, folder).await {
            Ok(false) => None,
            Ok(true) => {
                claimed.status.files = claimed.stored.names();
                claimed.status.attempts = 1;
                match self.write(claimed).await {
                    Err(ClusterError::Lost) => Some(Ended::Lost),
                    Err(error) => {
                        tracing::debug!("the state of the run is not known to the queue: {error}");
                        None
                    }
                    Ok(()) => None,
                }
            }
            Err(error) => {
                tracing::debug!("the state of the run is not stored: {error}");
                None
            }
        }
    }

    async fn write(&self, claimed: &mut Claimed) -> Result<()> {
        let key = &claimed.job.key;
        let written = self
            .connection
            .write_status(key, &claimed.status, claimed.revision);
        claimed.revision = written.await?;
        Ok(())
    }

    /// Reports what happens to the clients of the job. What cannot be sent is left out.
    async fn forward(
        &self,
        key: &JobKey,
        event: std::result::Result<JobEvent, broadcast::error::RecvError>,
        previews: &mut Previews,
    ) {
        let Ok(event) = event else { return };
        if event.kind == "preview" && !previews.takes_turn() {
            return;
        }
        let json = event_json(&event).to_string();
        if self.connection.is_connected() {
            let _ = self.connection.client.publish(key.events(), json.into()).await;
        }
    }

    /// Writes the end of a job, or gives it back.
    async fn end(&self, claimed: &mut Claimed, ended: Ended) -> Result<()> {
        let outcome = match ended {
            Ended::Lost => return Err(ClusterError::Lost),
            Ended::Cancelled => return acknowledge(&claimed.message).await,
            Ended::Stopped => {
                self.store(claimed).await;
                claimed.status.attempts = claimed.status.attempts.saturating_sub(1);
                return self.release(claimed, None).await;
            }
            Ended::Finished(outcome) => outcome,
        };
        claimed.status.warnings = outcome.warnings;
        match outcome.images {
            Ok(images) => match self.put(claimed, &images).await {
                Ok(()) => {
                    claimed.status.images = images;
                    self.conclude(claimed, State::Done, None).await
                }
                Err(error) => self.give_back(claimed, &error).await,
            },
            Err(unusable) => {
                if let Some(error) = unusable.of_storage(claimed.folder.path()) {
                    return self.give_back(claimed, &error).await;
                }
                if self.passed_on(claimed, &unusable).await? {
                    return Ok(());
                }
                let error = JobError::from(&unusable);
                self.conclude(claimed, State::Failed, Some(error)).await
            }
        }
    }

    /// Writes that a job is done or has failed.
    async fn conclude(&self, claimed: &mut Claimed, state: State, error: Option<JobError>) -> Result<()> {
        claimed.status.state = state;
        claimed.status.error = error;
        self.persist(claimed).await?;
        tracing::info!(job = %claimed.job.key.job, state = claimed.status.state.name());
        acknowledge(&claimed.message).await
    }

    /// Puts the images where front ends fetch them.
    async fn put(&self, claimed: &Claimed, images: &[ResultImage]) -> Result<()> {
        let key = &claimed.job.key;
        for (index, image) in images.iter().enumerate() {
            let path = claimed.folder.images().join(&image.name);
            let (image, metadata) = result_names(key, index, image);
            for (path, name) in [(path.with_extension("json"), metadata), (path, image)] {
                let bytes = tokio::fs::read(&path).await;
                let bytes = bytes.map_err(|source| ClusterError::File { path, source })?;
                let mut tries = 1;
                while let Err(error) = self.results.put(&name, bytes.clone()).await {
                    if tries >= TRIES {
                        return Err(error);
                    }
                    tracing::warn!("{error}");
                    self.wait(claimed, tries).await?;
                    tries += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes the end of the job, again and again while the queue cannot be reached.
    async fn persist(&self, claimed: &mut Claimed) -> Result<()> {
        let mut tries = 1;
        loop {
            match self.write(claimed).await {
                Err(error) if !matches!(error, ClusterError::Lost) && tries < TRIES * TRIES => {
                    tracing::warn!("{error}");
                    self.wait(claimed, tries).await?;
                    tries += 1;
                }
                written => return written,
            }
        }
    }

    /// Waits before another try. The job stays this worker's meanwhile, unless another has it.
    async fn wait(&self, claimed: &Claimed, tries: u32) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(500) * tries.min(6)).await;
        match self.sign(claimed).await {
            Some(_) => Err(ClusterError::Lost),
            None => Ok(()),
        }
    }

    /// Passes a job that needs more memory than was planned on to larger workers, and returns whether there may be any.
    async fn passed_on(&self, claimed: &mut Claimed, unusable: &Unusable) -> Result<bool> {
        let Unusable::Pipeline(sd_pipeline::Error::BudgetTooSmall { smallest, .. }) = unusable else {
            return Ok(false);
        };
        let key = claimed.job.key.clone();
        let route = Route {
            model: claimed.job.model.clone(),
            class: MemoryClass::needing(smallest.0),
        };
        let subject = route.subject(&key);
        let present = claimed.message.subject.as_str();
        if subject == present || !is_larger(route.class, present) {
            return Ok(false);
        }
        claimed.status.state = State::Queued;
        claimed.status.worker = None;
        claimed.status.attempts = 0;
        claimed.status.subject.clone_from(&subject);
        self.persist(claimed).await?;
        let id = format!("{}-{}", key.job, route.class);
        self.connection.publish(&subject, &id, &claimed.job).await?;
        acknowledge(&claimed.message).await?;
        Ok(true)
    }

    /// Gives a job back because of what may not happen to another worker.
    async fn give_back(&self, claimed: &mut Claimed, error: &dyn std::error::Error) -> Result<()> {
        tracing::warn!(job = %claimed.job.key.job, "given back: {error}");
        claimed.status.error = Some(JobError::new("failed", error.to_string()));
        self.release(claimed, Some(PAUSE)).await?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Lets another worker have the job, after `pause`.
    async fn release(&self, claimed: &mut Claimed, pause: Option<Duration>) -> Result<()> {
        claimed.status.state = State::Queued;
        claimed.status.worker = None;
        self.write(claimed).await?;
        let given_back = claimed.message.ack_with(AckKind::Nak(pause)).await;
        given_back.map_err(ClusterError::queue("give a job back"))?;
        let sent = self.connection.client.flush().await;
        sent.map_err(ClusterError::queue("give a job back"))
    }
}

/// When previews are sent: while someone watches, and not too often.
#[derive(Debug, Default)]
struct Previews {
    watched: Option<Instant>,
    last: Option<Instant>,
}

impl Previews {
    /// Whether a preview may be sent now, which it then is.
    fn takes_turn(&mut self) -> bool {
        let is_watched = self
            .watched
            .is_some_and(|watched| watched.elapsed() < WATCHED_FOR);
        let is_soon = self.last.is_some_and(|last| last.elapsed() < BETWEEN_PREVIEWS);
        if is_watched && !is_soon {
            self.last = Some(Instant::now());
        }
        is_watched && !is_soon
    }
}

/// Whether jobs of `class` need more memory than those of `subject`.
fn is_larger(class: MemoryClass, subject: &str) -> bool {
    let present = subject.split('.').nth(3).and_then(MemoryClass::parse);
    present.is_none_or(|present| class > present)
}

/// Removes a job from the stream, and waits until the server says that it has.
async fn acknowledge(message: &Message) -> Result<()> {
    let acknowledged = message.double_ack().await;
    acknowledged.map_err(ClusterError::queue("acknowledge a job"))
}

/// Ticks that begin after one period.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
