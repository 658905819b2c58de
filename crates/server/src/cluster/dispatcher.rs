//! [`dispatch`]: the front end's part. It hands the jobs of its store to the queue, and brings back what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::kv::{Entry, Operation, Watch};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;

use super::connection::Connection;
use super::error::{ClusterError, Result};
use super::files;
use super::options::QueueOptions;
use super::results::Results;
use super::settle::Settler;
use super::status::{JobMessage, Status};
use super::subject::{self, JobKey, MemoryClass, Route};
use crate::events::JobEvent;
use crate::job::{Job, JobId, State};
use crate::lock::lock;
use crate::queue::{Turns, Waiting};
use crate::running::Running;
use crate::server::Server;
use crate::store::now;

/// How often cancelled jobs and the connection are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often jobs are handed out without a sign that there is room.
const BETWEEN_FILLS: Duration = Duration::from_secs(2);
/// After how long without news it is checked whether a job is still in the queue.
const BETWEEN_CHECKS: Duration = Duration::from_secs(30);
/// How often workers are told that someone watches their jobs.
const BETWEEN_WATCHES: Duration = Duration::from_secs(5);
/// How long the number of workers of a route is taken for true.
const BETWEEN_COUNTS: Duration = Duration::from_secs(2);
/// The longest between two tries to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The fewest jobs of a route that may wait in the queue.
const FEWEST_AHEAD: usize = 8;
/// The most ended jobs that are settled at a time.
const MOST_SETTLING: usize = 16;

/// Runs the jobs of `server` on other machines until it stops.
pub(crate) fn dispatch(server: &Arc<Server>, options: &QueueOptions) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(server, options)),
        Err(error) => {
            tracing::error!("the queue cannot be used: {error}");
            server.set_stalled(Some(error.to_string()));
        }
    }
}

/// Connects, again and again, and dispatches.
async fn serve(server: &Arc<Server>, options: &QueueOptions) {
    let mut pause = Duration::from_millis(500);
    while !server.is_stopping() {
        match Dispatcher::open(server, options).await {
            Ok(mut dispatcher) => return dispatcher.work().await,
            Err(error) => {
                tracing::warn!("{error}");
                server.set_stalled(Some(error.to_string()));
            }
        }
        let end = Instant::now() + pause;
        while Instant::now() < end && !server.is_stopping() {
            tokio::time::sleep(TICK).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A job that is in the queue.
struct Dispatched {
    route: Route,
    running: Option<Arc<Running>>,
    /// When something was heard of it last. `None` if it is to be looked for.
    heard: Option<Instant>,
    is_cancelled: bool,
}

/// How many jobs of a route may wait in the queue.
struct Window {
    counted: Instant,
    jobs: usize,
}

struct Dispatcher {
    server: Arc<Server>,
    settler: Settler,
    connection: Connection,
    id: JobId,
    turns: Turns,
    dispatched: BTreeMap<JobId, Dispatched>,
    /// The routes of jobs that wait in the store.
    routes: BTreeMap<JobId, Route>,
    windows: BTreeMap<Route, Window>,
    /// Statuses of ended jobs, and the jobs that are being settled.
    ended: BTreeMap<JobId, Status>,
    settling: FuturesUnordered<BoxFuture<'static, (JobId, crate::Result<()>)>>,
    at_settling: BTreeSet<JobId>,
    statuses: Option<Watch>,
    events: Subscriber,
    local: broadcast::Receiver<JobEvent>,
    filled: Option<Instant>,
    watched: Option<Instant>,
    /// Whether there may be room for more jobs.
    may_fill: bool,
}

impl Dispatcher {
    async fn open(server: &Arc<Server>, options: &QueueOptions) -> crate::Result<Self> {
        let id = front_end(server)?;
        let connection = Connection::open(options, "sd-generate front end").await?;
        let results = Results::open(options.results.as_deref(), &connection).await?;
        let events = connection.client.subscribe(format!("sd.events.{id}.*")).await;
        let settler = Settler {
            server: server.clone(),
            connection: connection.clone(),
            results,
            keeps_results: options.keeps_results,
        };
        Ok(Self {
            server: server.clone(),
            settler,
            id,
            turns: Turns::default(),
            dispatched: BTreeMap::new(),
            routes: BTreeMap::new(),
            windows: BTreeMap::new(),
            ended: BTreeMap::new(),
            settling: FuturesUnordered::new(),
            at_settling: BTreeSet::new(),
            statuses: None,
            events: events.map_err(ClusterError::queue("listen"))?,
            local: server.events.listen(),
            connection,
            filled: None,
            watched: None,
            may_fill: true,
        })
    }

    async fn work(&mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.server.is_stopping() {
            let done = tokio::select! {
                status = next_status(&mut self.statuses) => match status {
                    Some(entry) => self.apply(&entry).await,
                    None => {
                        self.statuses = None;
                        Ok(())
                    }
                },
                Some(event) = self.events.next() => {
                    self.report(&event);
                    Ok(())
                }
                event = self.local.recv() => self.heard(event).await,
                Some((id, settled)) = self.settling.next(), if !self.settling.is_empty() => {
                    self.settled(&id, settled)
                }
                _ = tick.tick() => self.tick().await,
            };
            let done = match done {
                Ok(()) if self.may_fill && self.connection.is_connected() => self.fill().await,
                done => done,
            };
            if let Err(error) = done {
                tracing::warn!("the queue waits: {error}");
                self.server.set_stalled(Some(error.to_string()));
            }
        }
    }

    /// What is due now and then.
    async fn tick(&mut self) -> crate::Result<()> {
        if !self.connection.is_connected() {
            let reason = "the queue cannot be reached".to_owned();
            self.server.set_stalled(Some(reason));
            // Nothing is known of the jobs until it can.
            self.dispatched.values_mut().for_each(|job| job.heard = None);
            return Ok(());
        }
        if self.statuses.is_none() {
            let watch = self
                .connection
                .statuses
                .watch_with_history(format!("{}.*", self.id));
            self.statuses = Some(watch.await.map_err(ClusterError::queue("watch the jobs"))?);
        }
        // One listener is this one.
        if self.server.events.listeners() > 1
            && self
                .watched
                .is_none_or(|watched| watched.elapsed() >= BETWEEN_WATCHES)
        {
            let told = self
                .connection
                .client
                .publish(subject::watch(&self.id), "".into());
            told.await.map_err(ClusterError::queue("ask for previews"))?;
            self.watched = Some(Instant::now());
        }
        let cancelled = |job: &Dispatched| {
            let is_cancelled = job.running.as_ref().is_some_and(|running| running.is_cancelled());
            is_cancelled && !job.is_cancelled
        };
        let cancelled = self.dispatched.iter().filter(|(_, job)| cancelled(job));
        let cancelled: Vec<JobId> = cancelled.map(|(id, _)| id.clone()).collect();
        for id in cancelled {
            self.cancel(&id).await?;
        }
        self.check().await?;
        self.settle_more();
        if self.filled.is_none_or(|filled| filled.elapsed() >= BETWEEN_FILLS) {
            self.may_fill = true;
        }
        Ok(())
    }

    fn key(&self, id: &JobId) -> JobKey {
        JobKey {
            front_end: self.id.clone(),
            job: id.clone(),
        }
    }

    /// Takes note of the status of a job.
    async fn apply(&mut self, entry: &Entry) -> crate::Result<()> {
        let (Some(key), Operation::Put) = (JobKey::parse(&entry.key), entry.operation) else {
            return Ok(());
        };
        let status = Status::parse(&entry.key, &entry.value)?;
        let id = key.job.clone();
        let job = self.server.store.job(&id)?.filter(|job| !job.state.is_ended());
        if status.state.is_ended() {
            self.ended.insert(id, status);
            self.settle_more();
            return Ok(());
        }
        let Some(job) = job else {
            // It ended here while nobody could be told.
            return self.cancel(&id).await;
        };
        let dispatched = self.dispatched.entry(id.clone()).or_insert_with(|| Dispatched {
            route: route(&job),
            running: None,
            heard: None,
            is_cancelled: false,
        });
        dispatched.heard = Some(Instant::now());
        if status.state == State::Running {
            self.begin(&id, &status)?;
        }
        Ok(())
    }

    /// Takes note that a worker runs a job.
    fn begin(&mut self, id: &JobId, status: &Status) -> crate::Result<()> {
        let Some(dispatched) = self.dispatched.get_mut(id) else {
            return Ok(());
        };
        let changing = self.server.changing();
        // If it was cancelled meanwhile, its worker is told when that is heard.
        let Some(mut job) = self.server.store.job(id)?.filter(|job| !job.state.is_ended()) else {
            return Ok(());
        };
        let is_new = job.state != State::Running;
        if is_new {
            job.state = State::Running;
            job.started = status.started.or_else(|| Some(now()));
            // Not as a job that begins here, which is given up if this server is killed many times.
            self.server.store.update(&job, 0)?;
        }
        if dispatched.running.is_none() {
            let running = Running::new(job.id.clone(), job.user.clone());
            self.server.begin_running(running.clone());
            dispatched.running = Some(running);
            self.may_fill = true;
        }
        if is_new {
            self.server.changed(&job);
        }
        drop(changing);
        Ok(())
    }

    /// Begins to settle ended jobs.
    fn settle_more(&mut self) {
        if !self.connection.is_connected() {
            return;
        }
        for (id, status) in &self.ended {
            if self.at_settling.len() >= MOST_SETTLING {
                return;
            }
            if !self.at_settling.insert(id.clone()) {
                continue;
            }
            let (id, key, status) = (id.clone(), self.key(id), status.clone());
            let settled = self.settler.clone().settle(key, status);
            self.settling.push(Box::pin(async move { (id, settled.await) }));
        }
    }

    fn settled(&mut self, id: &JobId, settled: crate::Result<()>) -> crate::Result<()> {
        // If it failed, the next tick begins again.
        self.at_settling.remove(id);
        settled?;
        self.ended.remove(id);
        self.dispatched.remove(id);
        self.server.end_running(id);
        self.server.set_stalled(None);
        self.settle_more();
        self.may_fill = true;
        Ok(())
    }

    /// Reports to the clients of a job what its worker says.
    fn report(&self, message: &async_nats::Message) {
        let id = message.subject.rsplit('.').next().and_then(JobId::parse);
        let running = id.and_then(|id| self.dispatched.get(&id)?.running.clone());
        let (Some(running), Ok(event)) = (running, serde_json::from_slice::<WorkerEvent>(&message.payload))
        else {
            return;
        };
        let events = &self.server.events;
        match event {
            WorkerEvent::Progress(progress) => {
                *lock(&running.progress) = Some(progress.clone());
                events.progress(&running, &progress);
            }
            WorkerEvent::Preview(preview) => {
                *lock(&running.preview) = Some(preview.clone());
                events.preview(&running, &preview);
            }
            WorkerEvent::Memory(memory) => events.memory(&running, &memory),
        }
    }

    /// Takes note of what happens to jobs here: new ones are handed out, cancelled ones taken back.
    async fn heard(
        &mut self,
        event: std::result::Result<JobEvent, broadcast::error::RecvError>,
    ) -> crate::Result<()> {
        let Ok(event) = event else {
            // There was too much to hear.
            self.may_fill = true;
            return Ok(());
        };
        if event.kind != "job" {
            return Ok(());
        }
        match event.data["state"].as_str() {
            Some("queued") => self.may_fill = true,
            Some("cancelled") if self.dispatched.contains_key(&event.job) => self.cancel(&event.job).await?,
            _ => {}
        }
        Ok(())
    }

    /// Takes a job back from the queue or its worker.
    async fn cancel(&mut self, id: &JobId) -> crate::Result<()> {
        let key = self.key(id);
        // A worker may write at the same time.
        while let Some((status, revision)) = self.connection.status(&key).await? {
            if status.state.is_ended() {
                break;
            }
            let cancelled = Status {
                state: State::Cancelled,
                ..status
            };
            match self.connection.write_status(&key, &cancelled, revision).await {
                Err(ClusterError::Lost) => {}
                written => {
                    written?;
                    break;
                }
            }
        }
        let told = self.connection.client.publish(key.cancel(), "".into()).await;
        told.map_err(ClusterError::queue("cancel a job"))?;
        if let Some(dispatched) = self.dispatched.get_mut(id) {
            dispatched.is_cancelled = true;
        }
        Ok(())
    }

    /// Looks for jobs of which nothing was heard, and hands them out again if the queue has lost them.
    async fn check(&mut self) -> crate::Result<()> {
        let is_due = |job: &Dispatched| job.heard.is_none_or(|heard| heard.elapsed() >= BETWEEN_CHECKS);
        let due = self.dispatched.iter().filter(|(_, job)| is_due(job));
        let due: Vec<JobId> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let key = self.key(&id);
            let subject = match self.connection.status(&key).await? {
                Some((status, _)) => status.subject,
                None => self.dispatched[&id].route.subject(&key),
            };
            if !self.connection.has_job(&subject).await? {
                // A worker acknowledges a job after it has written its end.
                match self.connection.status(&key).await? {
                    Some((status, _)) if status.state.is_ended() => {
                        self.ended.insert(id.clone(), status);
                    }
                    _ => match self.server.store.job(&id)? {
                        Some(job) if !job.state.is_ended() => {
                            tracing::info!("the job {id} is handed out again: the queue has lost it");
                            self.publish(&job, &subject).await?;
                        }
                        _ => drop(self.dispatched.remove(&id)),
                    },
                }
            }
            if let Some(dispatched) = self.dispatched.get_mut(&id) {
                dispatched.heard = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Hands out jobs that wait, in the order of their turns, as far as there is room.
    async fn fill(&mut self) -> crate::Result<()> {
        self.may_fill = false;
        self.filled = Some(Instant::now());
        let mut waiting: Vec<Waiting> = self.server.store.waiting()?;
        waiting.retain(|job| !self.dispatched.contains_key(&job.id));
        let ids: BTreeSet<&JobId> = waiting.iter().map(|job| &job.id).collect();
        self.routes.retain(|id, _| ids.contains(id));
        for job in &waiting {
            if !self.routes.contains_key(&job.id)
                && let Some(job) = self.server.store.job(&job.id)?
            {
                self.routes.insert(job.id.clone(), route(&job));
            }
        }
        waiting.retain(|job| self.routes.contains_key(&job.id));
        while let Some(next) = self.turns.next(&waiting, now()).cloned() {
            let route = self.routes[&next.id].clone();
            if !self.has_room(&route).await? {
                waiting.retain(|job| self.routes[&job.id] != route);
                continue;
            }
            waiting.retain(|job| job.id != next.id);
            let job = self.server.store.job(&next.id)?;
            if let Some(job) = job.filter(|job| job.state == State::Queued) {
                self.publish(&job, &route.subject(&self.key(&job.id))).await?;
                self.turns.taken(&next);
            }
        }
        self.server.set_stalled(None);
        Ok(())
    }

    /// Whether another job of `route` may wait in the queue: as many as there are workers, and a few in any case.
    async fn has_room(&mut self, route: &Route) -> Result<bool> {
        let is_waiting = |job: &&Dispatched| job.running.is_none() && job.route == *route;
        let own = self.dispatched.values().filter(is_waiting).count();
        let window = self.windows.get(route);
        if let Some(window) = window.filter(|window| window.counted.elapsed() < BETWEEN_COUNTS) {
            return Ok(own < window.jobs);
        }
        // Without a consumer no worker has had this model yet.
        let info = self.connection.jobs.consumer_info(route.consumer()).await;
        let jobs = info.map_or(FEWEST_AHEAD, |info| {
            let workers = info.num_waiting + info.num_ack_pending;
            let of_others = usize::try_from(info.num_pending)
                .unwrap_or(usize::MAX)
                .saturating_sub(own);
            workers.max(FEWEST_AHEAD).saturating_sub(of_others).max(1)
        });
        let counted = Instant::now();
        self.windows.insert(route.clone(), Window { counted, jobs });
        Ok(own < jobs)
    }

    /// Adds a job to the queue, with its source images.
    async fn publish(&mut self, job: &Job, subject: &str) -> crate::Result<()> {
        let key = self.key(&job.id);
        let folder = self.server.folder_of(&job.id);
        let inputs = files::inputs(&folder);
        for input in &inputs {
            self.connection.store_file(&key, &folder, input).await?;
        }
        let status = Status::queued(subject.to_owned());
        let is_new = self.connection.create_status(&key, &status).await?;
        let message = JobMessage {
            key,
            user: job.user.clone(),
            model: job.model.clone(),
            request: job.request.clone(),
            inputs,
        };
        let dispatched = self
            .dispatched
            .entry(job.id.clone())
            .or_insert_with(|| Dispatched {
                route: route(job),
                running: None,
                heard: None,
                is_cancelled: false,
            });
        dispatched.heard = Some(Instant::now());
        // A status without a message is that of an earlier try. One with a message is not published twice.
        if is_new || !self.connection.has_job(subject).await? {
            self.connection
                .publish(subject, job.id.as_str(), &message)
                .await?;
        }
        Ok(())
    }
}

/// What a worker reports.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "lowercase")]
enum WorkerEvent {
    Progress(crate::job::Progress),
    Preview(crate::job::PreviewView),
    Memory(crate::job::MemoryView),
}

/// The next status; `None` if the watch is over. Without a watch it waits for ever.
async fn next_status(watch: &mut Option<Watch>) -> Option<Entry> {
    match watch {
        None => std::future::pending().await,
        Some(watch) => match watch.next().await {
            Some(Ok(entry)) => Some(entry),
            Some(Err(error)) => {
                tracing::debug!("the jobs are watched anew: {error}");
                None
            }
            None => None,
        },
    }
}

/// The route of a job: its model, and the budget that it needs.
fn route(job: &Job) -> Route {
    let needed = job.plan.as_ref().map_or(0, |plan| plan.smallest_budget);
    Route {
        model: job.model.clone(),
        class: MemoryClass::needing(needed),
    }
}

/// The id of this front end, which its folder keeps.
fn front_end(server: &Server) -> crate::Result<JobId> {
    let file = server.options.folder.join("front-end");
    if let Ok(text) = std::fs::read_to_string(&file)
        && let Some(id) = JobId::parse(text.trim())
    {
        return Ok(id);
    }
    let id = JobId::random()?;
    files::write(&file, id.as_str().as_bytes())?;
    Ok(id)
}

/// The JSON of an event of a worker, as [`WorkerEvent`] reads it.
pub(super) fn event_json(event: &JobEvent) -> Value {
    serde_json::json!({ "kind": event.kind, "data": *event.data })
}
