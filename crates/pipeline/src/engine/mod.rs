//! The engine: runs one request after another, and decides what stays in memory between them.

mod ahead;
mod idle;

use sd_memory::Bytes;

use crate::device;
use crate::event::{Event, Interrupt, Observer, SavedImage};
use crate::loaded::{DeviceMemory, Loaded};
use crate::memory::{self, cleanup_memory};
use crate::prompt_cache::AheadEntries;
use crate::request::{ModelChoice, Request};
use crate::resume::{ClaimedRun, LaterRequest};
use crate::run::{Planner, Run, RunOrigin};
use crate::user_dirs::UserDirs;
use crate::{Error, Result};
use idle::IdleWatch;

/// The most requests whose prompts are encoded ahead: with Stable Diffusion 3 they take 3 GB of the disk.
const MOST_AHEAD: usize = 256;

/// Runs requests one after another. A process has one engine, which owns the device and what is loaded.
///
/// By default nothing stays in memory between two requests. With [`keep_loaded`](Self::keep_loaded) the
/// resident blocks of the networks, the encoded prompts and the tokenizers are cached, within the budget of the request, and
/// the text encoders where they fit beside all of these. So a second request for the same model reads no resident block again,
/// and encodes only the prompts that the one before had not. What the next request cannot use is
/// dropped before a weight is read: blocks of another model, of other LoRA files, of another device or data
/// type, and blocks that do not fit beside its plan. The cache never changes an image, a plan or an error.
///
/// ```no_run
/// use sd_pipeline::{Engine, Event, Interrupt, ModelChoice, ModelFiles, Recommended, Request};
///
/// let model = ModelChoice {
///     name: "demo".to_owned(),
///     files: ModelFiles::at("models/demo"),
///     recommended: Recommended::default(),
/// };
/// let mut engine = Engine::new().keep_loaded();
/// for prompt in ["a red circle", "a blue square"] {
///     let request = Request::new(prompt, model.clone());
///     let mut observer = |_: &Event<'_>| {};
///     let saved = engine.run(&request, &mut observer, &Interrupt::default())?;
///     println!("{}", saved[0].image.display());
/// }
/// # Ok::<(), sd_pipeline::Error>(())
/// ```
#[doc(alias = "pipeline")]
#[derive(Debug, Default)]
pub struct Engine {
    loaded: Loaded,
    /// Watches the memory pressure while no request runs.
    idle: Option<IdleWatch>,
    /// Prompts that were encoded ahead.
    ahead: Vec<AheadEntries>,
}

impl Engine {
    /// An engine that caches nothing between two requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Caches what the next request may use. The cache is released for a request for another model, when a
    /// plan needs its memory, when a run fails, and while the machine is short of memory.
    #[doc(alias = "keep_alive")]
    #[must_use]
    pub fn keep_loaded(self) -> Self {
        Self {
            loaded: Loaded::with_cache(),
            ..self
        }
    }

    /// Uses the tokenizers that `planner` keeps, and keeps its own there.
    #[must_use]
    pub fn sharing_tokenizers(mut self, planner: &Planner) -> Self {
        self.loaded.share_tokenizers(planner.tokenizers().clone());
        self
    }

    /// Generates the images of `request` and saves them. `observer` receives the events; `interrupt` stops
    /// the run between two pieces of work.
    ///
    /// # Errors
    /// Any of [`Error`]. Images that were saved before stay, and no file is half-written. A run that is worth
    /// continuing is kept for [`resume`](Self::resume), and the observer is notified. The engine can run the
    /// next request.
    pub fn run(
        &mut self,
        request: &Request,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        self.start(request, RunOrigin::New { later: Vec::new() }, observer, interrupt)
    }

    /// Generates the images of `requests`, one after another, and saves them. Their prompts are
    /// [encoded ahead](Self::encode_ahead). If a run is kept for [`resume`](Self::resume), its state holds the requests
    /// after it too ([`ClaimedRun::later`]).
    ///
    /// # Errors
    /// As [`run`](Self::run), of the first request that fails. Those after it are not begun.
    pub fn run_all(
        &mut self,
        requests: &[&Request],
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        let count = requests.len();
        let mut later = Vec::new();
        if let [first, others @ ..] = requests
            && !others.is_empty()
        {
            let device = self.loaded.device(first.device)?;
            later = LaterRequest::of_all(others, device::settled(&device));
        }
        let mut images = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            if count > 1 && index % MOST_AHEAD == 0 {
                let window = &requests[index..count.min(index + MOST_AHEAD)];
                match self.encode_ahead(window, observer, interrupt) {
                    // The run ends as soon as it is begun, and is kept with those after it.
                    Ok(()) | Err(Error::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
            if count > 1 {
                observer.observe(&Event::Request {
                    number: index + 1,
                    count,
                    prompt: &request.prompt,
                });
            }
            let later = later.iter().skip(index).flatten().cloned().collect();
            images.extend(self.start(request, RunOrigin::New { later }, observer, interrupt)?);
        }
        Ok(images)
    }

    /// Encodes the prompts of `requests`, which run later, so that each text encoder is read once for all of them
    /// instead of once for each prompt. The encoded prompts are kept in the prompt cache, or where that is not possible
    /// in memory. As many are encoded at once as fit into the budget. This changes no image, and what fails here is
    /// left to the run of its request.
    ///
    /// # Errors
    /// It was interrupted.
    #[doc(alias = "encode_prompt")]
    pub fn encode_ahead(
        &mut self,
        requests: &[&Request],
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.idle = None;
        let entries = ahead::encode(requests, &mut self.loaded, observer, interrupt)?;
        self.ahead.extend(entries);
        Ok(())
    }

    /// Resumes an interrupted run, and returns all of its images, also those that were saved before. `models`
    /// are those that [`ClaimedRun::models`] names. The requests after it in its batch are left to
    /// [`run_all`](Self::run_all).
    ///
    /// # Errors
    /// As [`run`](Self::run), and if a model or the device is not the same as when the run began.
    ///
    /// # Panics
    /// The number of models differs from that of the run.
    pub fn resume(
        &mut self,
        claimed: ClaimedRun,
        models: Vec<ModelChoice>,
        user_dirs: &UserDirs,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        let request = claimed.request(models, user_dirs);
        let origin = RunOrigin::Resumed(Box::new(claimed));
        self.start(&request, origin, observer, interrupt)
    }

    /// The device of the last request, if it has memory of its own.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        self.loaded.device_memory()
    }

    /// Bytes of the cached weights and prompts.
    pub fn loaded_bytes(&self) -> Bytes {
        self.loaded.bytes()
    }

    /// Releases the cache, and returns its memory to the system. Pages of the program's file, in which a built-in model
    /// is, are dropped too.
    #[doc(alias = "unload")]
    pub fn release(&mut self) {
        self.idle = None;
        self.loaded.release();
        cleanup_memory(true);
        sd_weights::release_program_pages();
    }

    fn start(
        &mut self,
        request: &Request,
        origin: RunOrigin,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        self.idle = None;
        let monitor = memory::monitor();
        let run = Run::open(request, origin, &mut self.loaded, &monitor, observer, interrupt);
        let tokenizers = self.loaded.tokenizers();
        let outcome = run.and_then(|mut run| {
            let outcome = run.generate();
            if let Err(error) = &outcome
                && !matches!(error, Error::Interrupted)
            {
                // What is cached may be the cause of the failure.
                run.forget_cached();
                tokenizers.clear();
            }
            run.end(outcome)
        });
        if let Some(cache) = self.loaded.cache() {
            cache.prompts.end_request();
        }
        // The run has dropped everything else by now, also after an error.
        cleanup_memory(true);
        observer.observe(&Event::Measured {
            timeline: &monitor.timeline(),
        });
        // The timeline is the last thing that the run holds.
        drop(monitor);
        cleanup_memory(true);
        self.idle = self.loaded.cache().and_then(IdleWatch::start);
        outcome
    }
}
