//! [`Server`]: what the worker and the interfaces share, and the start and the end of serving.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_pipeline::{Bytes, Interrupt};
use tokio::net::TcpListener;
use tokio::runtime;

#[cfg(feature = "cluster")]
use crate::cluster;
use crate::events::{Events, MemoryView, PreviewView};
use crate::job::{Job, JobId, JobView, Progress, State};
use crate::lock::lock;
use crate::options::Options;
use crate::prepare::JobFolder;
use crate::store::Store;
use crate::{Error, Result, http, retention, worker};

/// How long connections are waited for when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// Ended jobs between two looks for what is no longer kept.
const BETWEEN_SWEEPS: u64 = 20;
/// Threads for connections. Images are generated on others.
const THREADS: usize = 2;

/// What the worker and the interfaces share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) totals: Totals,
    began: Instant,
    /// The model that a client of stable-diffusion-webui's interface has chosen for requests that name none.
    pub(crate) chosen_model: Mutex<Option<String>>,
    /// The jobs that run: one on this machine, many on others.
    running: Mutex<Vec<Arc<Running>>>,
    /// Why the queue waits, if the disk cannot be written.
    stalled: Mutex<Option<String>>,
    /// Bytes of loaded weights and prompts.
    loaded: AtomicU64,
    wakes: Mutex<Wakes>,
    woken: Condvar,
    is_stopping: AtomicBool,
    /// Locked while the server runs.
    _folder_lock: File,
}

#[derive(Debug, Default)]
struct Wakes {
    /// Whether there may be work.
    is_woken: bool,
    /// Whether someone has asked for the memory of what is loaded.
    is_release: bool,
}

/// Counters since the server began.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) accepted: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) images: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Milliseconds in which jobs ran.
    pub(crate) busy: AtomicU64,
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: JobId,
    pub(crate) user: String,
    pub(crate) interrupt: Interrupt,
    pub(crate) cancelled: Mutex<bool>,
    pub(crate) progress: Mutex<Option<Progress>>,
    pub(crate) preview: Mutex<Option<PreviewView>>,
    pub(crate) readings: Mutex<Vec<MemoryView>>,
}

impl Running {
    pub(crate) fn new(id: JobId, user: String) -> Arc<Self> {
        Arc::new(Self {
            id,
            user,
            interrupt: Interrupt::default(),
            cancelled: Mutex::new(false),
            progress: Mutex::new(None),
            preview: Mutex::new(None),
            readings: Mutex::new(Vec::new()),
        })
    }
}

impl Server {
    fn open(options: Options) -> Result<Self> {
        let folder = options.folder.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Folder { path, source }
        };
        for name in ["jobs", "uploads"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(failed(&path))?;
        }
        let lock_file = folder.join("lock");
        let folder_lock = File::create(&lock_file).map_err(failed(&lock_file))?;
        match folder_lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { folder }),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_file)(source)),
        }
        let store = Store::open(&folder.join("jobs.sqlite"))?;
        let requeued = store.requeue_running()?;
        if requeued > 0 {
            tracing::info!("{requeued} jobs that the last server had begun go on");
        }
        Ok(Self {
            options,
            store,
            events: Events::new(),
            totals: Totals::default(),
            began: Instant::now(),
            chosen_model: Mutex::new(None),
            running: Mutex::new(Vec::new()),
            stalled: Mutex::new(None),
            loaded: AtomicU64::new(0),
            wakes: Mutex::new(Wakes::default()),
            woken: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            _folder_lock: folder_lock,
        })
    }

    /// The folder of a job.
    pub(crate) fn folder_of(&self, id: &JobId) -> JobFolder {
        JobFolder::new(self.options.folder.join("jobs").join(id.as_str()))
    }

    /// The folder of uploaded files.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.options.folder.join("uploads")
    }

    /// Since when the server runs.
    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// The job that has run the longest, if one runs.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        lock(&self.running).first().cloned()
    }

    /// The job `id`, if it runs.
    pub(crate) fn running_job(&self, id: &JobId) -> Option<Arc<Running>> {
        lock(&self.running)
            .iter()
            .find(|running| running.id == *id)
            .cloned()
    }

    pub(crate) fn begin_running(&self, running: Arc<Running>) {
        lock(&self.running).push(running);
    }

    pub(crate) fn end_running(&self, id: &JobId) {
        lock(&self.running).retain(|running| running.id != *id);
    }

    /// Why the queue waits, if it does.
    pub(crate) fn stalled(&self) -> Option<String> {
        lock(&self.stalled).clone()
    }

    pub(crate) fn set_stalled(&self, reason: Option<String>) {
        *lock(&self.stalled) = reason;
    }

    /// Bytes of loaded weights and prompts.
    pub(crate) fn loaded(&self) -> u64 {
        self.loaded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_loaded(&self, bytes: Bytes) {
        self.loaded.store(bytes.0, Ordering::Relaxed);
    }

    /// Whether the server ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Tells the worker that there may be work.
    pub(crate) fn wake(&self) {
        lock(&self.wakes).is_woken = true;
        self.woken.notify_all();
    }

    /// Asks the worker to give back what is loaded, once the running job has ended.
    pub(crate) fn release(&self) {
        let mut wakes = lock(&self.wakes);
        (wakes.is_release, wakes.is_woken) = (true, true);
        drop(wakes);
        self.woken.notify_all();
    }

    /// Whether someone has asked for the memory of what is loaded since the last call.
    pub(crate) fn takes_release(&self) -> bool {
        std::mem::take(&mut lock(&self.wakes).is_release)
    }

    /// Waits until there may be work, at most for `longest`.
    pub(crate) fn wait_for_work(&self, longest: Option<Duration>) {
        let mut wakes = lock(&self.wakes);
        let end = longest.map(|longest| Instant::now() + longest);
        while !wakes.is_woken && !self.is_stopping() {
            wakes = match end {
                None => self.woken.wait(wakes).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.woken.wait_timeout(wakes, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        wakes.is_woken = false;
    }

    /// A job as clients see it.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) fn view(&self, job: Job) -> Result<JobView> {
        let position = match job.state {
            State::Queued => {
                let waiting = self.store.waiting()?;
                waiting
                    .iter()
                    .position(|other| other.id == job.id)
                    .map(|index| index + 1)
            }
            _ => None,
        };
        Ok(self.view_at(job, position))
    }

    /// A job as clients see it, which is at `position` of the queue.
    pub(crate) fn view_at(&self, job: Job, position: Option<usize>) -> JobView {
        let running = self.running_job(&job.id);
        let progress = running.and_then(|running| lock(&running.progress).clone());
        JobView::new(job, position, progress)
    }

    /// Tells everyone that a job has changed.
    pub(crate) fn changed(&self, job: &Job) {
        if self.events.are_heard() {
            self.events.changed(&self.view_at(job.clone(), None));
        }
    }

    /// Counts an ended job, and now and then removes what is no longer kept.
    pub(crate) fn finished(&self, job: &Job) {
        let totals = &self.totals;
        let of_state = match job.state {
            State::Done => &totals.done,
            State::Cancelled => &totals.cancelled,
            _ => &totals.failed,
        };
        of_state.fetch_add(1, Ordering::Relaxed);
        totals
            .images
            .fetch_add(job.images.len() as u64, Ordering::Relaxed);
        if let (Some(started), Some(finished)) = (job.started, job.finished) {
            totals
                .busy
                .fetch_add((finished - started).max(0) as u64, Ordering::Relaxed);
        }
        if self.options.logs_prompts {
            tracing::info!(job = %job.id, state = job.state.name(), prompt = job.request.prompt);
        } else {
            tracing::info!(job = %job.id, state = job.state.name());
        }
        let ended = [&totals.done, &totals.failed, &totals.cancelled];
        let ended: u64 = ended.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        if ended.is_multiple_of(BETWEEN_SWEEPS) {
            retention::sweep(self);
        }
    }

    /// Cancels a job that waits or runs. `None` if there is none, `false` if it has ended.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) fn cancel(&self, id: &JobId) -> Result<Option<bool>> {
        if self.store.cancel_waiting(id)? {
            self.totals.cancelled.fetch_add(1, Ordering::Relaxed);
            if let Some(job) = self.store.job(id)? {
                self.changed(&job);
            }
            return Ok(Some(true));
        }
        if let Some(running) = self.running_job(id) {
            running.cancel();
            return Ok(Some(true));
        }
        Ok(self.store.job(id)?.map(|_| false))
    }

    /// Removes an ended job with its images, and returns whether there was one.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn remove(&self, id: &JobId) -> Result<bool> {
        let is_removed = self.store.remove_ended(id)?;
        if is_removed {
            let folder = self.folder_of(id);
            match fs::remove_dir_all(folder.path()) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let path = folder.path().to_owned();
                    return Err(Error::Folder { path, source });
                }
                _ => self.events.removed(id),
            }
        }
        Ok(is_removed)
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(running) = self.running() {
            running.interrupt.raise();
        }
        self.wake();
    }
}

/// Serves until `is_stopped` says so. `ready` is called with the address once it can be connected to. A job that runs at
/// the end goes on when the server is started again.
///
/// # Errors
/// The server cannot start, or its connection fails.
pub fn serve(
    options: Options,
    ready: impl FnOnce(SocketAddr),
    is_stopped: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    if !options.address.ip().is_loopback() && options.keys.are_none() {
        return Err(Error::Unprotected {
            address: options.address,
        });
    }
    let address = options.address;
    let cannot_listen = |source| Error::Address { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(cannot_listen)?;
    listener.set_nonblocking(true).map_err(cannot_listen)?;
    let server = Arc::new(Server::open(options)?);
    retention::sweep(&server);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(16)
        .thread_name("connections")
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let worker = std::thread::Builder::new().name("worker".to_owned()).spawn({
        let server = server.clone();
        move || {
            #[cfg(feature = "cluster")]
            if let Some(queue) = &server.options.queue {
                return cluster::dispatch(&server, queue);
            }
            worker::work(&server);
        }
    });
    let worker = worker.map_err(Error::Thread)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;
        ready(listener.local_addr().map_err(cannot_listen)?);
        let stopped = {
            let server = server.clone();
            async move {
                while !is_stopped() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                server.stop();
            }
        };
        http::serve(listener, server.clone(), stopped, FAREWELL).await
    });
    server.stop();
    // The worker saves the state of its run first.
    if worker.join().is_err() {
        tracing::error!("the worker has panicked. This is a bug.");
    }
    runtime.shutdown_timeout(FAREWELL);
    served
}
