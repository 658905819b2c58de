//! [`Server`]: what the worker and the interfaces share.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_pipeline::{DeviceMemory, Engine, Planner};

use crate::access::User;
use crate::events::Events;
use crate::job::{Job, JobId, JobView, ResultImage, State};
use crate::lock::lock;
use crate::model_facts::ModelFactsCache;
use crate::options::Options;
use crate::prepare::{JobFolder, Terms};
use crate::running::Running;
use crate::store::Store;
use crate::{Error, Result, log};

/// What the worker and the interfaces share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) totals: Totals,
    /// Plans jobs, with the tokenizers of the worker's engine.
    pub(crate) planner: Planner,
    /// What the models that were listed are.
    pub(crate) model_facts: ModelFactsCache,
    /// Bytes of the uploads that come.
    pub(crate) uploading: AtomicU64,
    began: Instant,
    /// The model that a client of stable-diffusion-webui's interface has chosen for requests that name none.
    pub(crate) chosen_model: Mutex<Option<String>>,
    /// The jobs that run, the oldest first: one on this machine, many on others.
    running: Mutex<Vec<Arc<Running>>>,
    /// Locked while a change of a job is written and everyone is told.
    changes: Mutex<()>,
    /// Why the queue waits, if the disk cannot be written.
    stalled: Mutex<Option<String>>,
    /// Bytes of loaded weights and prompts.
    loaded: AtomicU64,
    /// The device of the last job, if it has memory of its own, as it was when the job ended.
    device: Mutex<Option<DeviceMemory>>,
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

impl Server {
    /// Opens the folder of the server. The jobs that the last one had begun wait again.
    ///
    /// # Errors
    /// The folder cannot be used, or another server uses it.
    pub(crate) fn open(options: Options) -> Result<Self> {
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
            planner: Planner::keeping_tokenizers(),
            model_facts: ModelFactsCache::default(),
            uploading: AtomicU64::new(0),
            began: Instant::now(),
            chosen_model: Mutex::new(None),
            running: Mutex::new(Vec::new()),
            changes: Mutex::new(()),
            stalled: Mutex::new(None),
            loaded: AtomicU64::new(0),
            device: Mutex::new(None),
            wakes: Mutex::new(Wakes::default()),
            woken: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            _folder_lock: folder_lock,
        })
    }

    /// What whoever started the server has decided about requests.
    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms {
            configuration: &self.options.configuration,
            models: self.options.models.as_deref(),
            limits: &self.options.limits,
            planner: &self.planner,
        }
    }

    /// The folder of a job.
    pub(crate) fn folder_of(&self, id: &JobId) -> JobFolder {
        JobFolder::new(self.jobs().join(id.as_str()))
    }

    /// The folder of the folders of jobs.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.options.folder.join("jobs")
    }

    /// The folder of uploaded files.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.options.folder.join("uploads")
    }

    /// Since when the server runs.
    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes a few bytes and removes them again, as accepting a job does.
    ///
    /// # Errors
    /// The disk is full or cannot be written.
    pub(crate) fn try_disk(&self) -> Result<()> {
        let path = self.options.folder.join("trial");
        let written = fs::write(&path, [0; 4096]);
        let removed = fs::remove_file(&path);
        written
            .and(removed)
            .map_err(|source| Error::Folder { path, source })
    }

    /// The jobs that run, the one that has run the longest first.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        lock(&self.running).clone()
    }

    /// The running jobs that `user` may see, the one that has run the longest first.
    pub(crate) fn running_of(&self, user: &User) -> Vec<Arc<Running>> {
        let mut running = self.running();
        running.retain(|running| self.may_see(user, &running.user));
        running
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

    /// The device of the last job, if it has memory of its own, as it was when the job ended.
    pub(crate) fn device(&self) -> Option<DeviceMemory> {
        lock(&self.device).clone()
    }

    /// Notes what `engine` holds between two jobs.
    pub(crate) fn note_loaded(&self, engine: &Engine) {
        self.loaded.store(engine.loaded_bytes().0, Ordering::Relaxed);
        *lock(&self.device) = engine.device_memory();
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
            State::Queued => self.store.position(&job.id)?,
            _ => None,
        };
        Ok(self.view_at(job, position))
    }

    /// A job as clients see it, which is at `position` of the queue.
    fn view_at(&self, mut job: Job, position: Option<usize>) -> JobView {
        let running = self.running_job(&job.id).filter(|_| !job.state.is_ended());
        let progress = running.and_then(|running| {
            job.images.clone_from(&lock(&running.images));
            lock(&running.progress).clone()
        });
        JobView::new(job, position, progress)
    }

    /// The image `index` of a job, if it is saved.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) fn image(&self, id: &JobId, index: usize) -> Result<Option<ResultImage>> {
        if let Some(running) = self.running_job(id)
            && let Some(image) = lock(&running.images).get(index)
        {
            return Ok(Some(image.clone()));
        }
        let job = self.store.job(id)?;
        Ok(job.and_then(|job| job.images.into_iter().nth(index)))
    }

    /// Until this is dropped, nobody else changes a job. So events come in the order of the changes, and a job cannot be
    /// cancelled between the look whether it waits and its begin.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        lock(&self.changes)
    }

    /// Whether `user` may see and change the jobs of `owner`. With keys of several users, each has its own.
    pub(crate) fn may_see(&self, user: &User, owner: &str) -> bool {
        !self.options.keys.are_of_several() || user.0 == owner
    }

    /// Tells everyone that a job has changed.
    pub(crate) fn changed(&self, job: &Job) {
        if self.events.are_heard() {
            self.events.changed(&self.view_at(job.clone(), None));
        }
    }

    /// Counts and logs an ended job.
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
        log::ended(job, self.options.logs_prompts);
    }

    /// Cancels a job that waits or runs. `None` if there is none, `false` if it has ended.
    ///
    /// # Errors
    /// The data base fails.
    pub(crate) fn cancel(&self, id: &JobId) -> Result<Option<bool>> {
        let changing = self.changing();
        if self.store.cancel_waiting(id)? {
            if let Some(job) = self.store.job(id)? {
                self.changed(&job);
                drop(changing);
                self.finished(&job);
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
        let changing = self.changing();
        let Some(job) = self.store.job(id)? else {
            return Ok(false);
        };
        if !self.store.remove_ended(id)? {
            return Ok(false);
        }
        self.events.removed(id, &job.user);
        drop(changing);
        let folder = self.folder_of(id);
        match fs::remove_dir_all(folder.path()) {
            // What is left is removed when the server starts again.
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
                path: folder.path().to_owned(),
                source,
            }),
            _ => Ok(true),
        }
    }

    /// Ends the runs of this machine, and the worker after that.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        for running in self.running() {
            running.interrupt.raise();
        }
        self.wake();
    }
}
