//! The engine: runs one request after another, and decides what stays in memory between them.

mod idle;

use sd_memory::Bytes;

use crate::event::{Event, Interrupt, Observer, SavedImage};
use crate::loaded::Loaded;
use crate::memory::{self, cleanup_memory};
use crate::request::{ModelChoice, Request};
use crate::resume::ClaimedRun;
use crate::run::Run;
use crate::user_dirs::UserDirs;
use crate::{Error, Result};
use idle::IdleWatch;

/// Runs requests, one after another. A process has one engine, which owns the device and what is loaded.
///
/// An engine of [`new`](Self::new) holds nothing between two requests. One that [keeps what it has
/// loaded](Self::keep_loaded) does, within the budget of the request: the resident blocks of the networks,
/// and the encoded prompts. The next request takes those that it can use, so a second request for the same
/// model reads no resident block again. What it cannot use is dropped before it reads a weight: blocks of
/// another model, of other LoRA files, of another device or data type, and those that its plan has no room
/// for. So what is kept never changes an image, a plan or an error.
///
/// ```no_run
/// use sd_pipeline::{Engine, Event, Interrupt, ModelChoice, ModelFolder, Recommended, Request};
///
/// let model = ModelChoice {
///     name: "demo".to_owned(),
///     folder: ModelFolder::on_disk("models/demo"),
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
    /// Watches for memory pressure while no request runs.
    idle: Option<IdleWatch>,
}

impl Engine {
    /// An engine that holds nothing between two requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine, which from now on keeps what the next request may use. It gives that up when another model
    /// is asked for, when a plan needs the room, when a run fails, and while the machine is short of memory.
    #[doc(alias = "keep_alive")]
    #[must_use]
    pub fn keep_loaded(self) -> Self {
        Self {
            loaded: Loaded::keeping(),
            idle: None,
        }
    }

    /// Runs `request`: makes its images and saves them. `observer` is told what happens; `interrupt` stops
    /// the run between two pieces of work.
    ///
    /// # Errors
    /// Anything that [`Error`] lists. Images that were saved before stay, and nothing is half-written. What
    /// is worth going on with is kept for [`resume`](Self::resume), and the observer told so. The engine can
    /// run the next request.
    pub fn run(
        &mut self,
        request: &Request,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        self.start(request, None, observer, interrupt)
    }

    /// Goes on with a run that was interrupted, as [`run`](Self::run) would have, and returns all of its
    /// images, also those that were saved before. `models` are those that [`ClaimedRun::models`] names.
    ///
    /// # Errors
    /// As [`run`](Self::run), and where a model or the device is no longer what it was when the run began.
    ///
    /// # Panics
    /// There are not as many models as the run names.
    pub fn resume(
        &mut self,
        claimed: ClaimedRun,
        models: Vec<ModelChoice>,
        user_dirs: &UserDirs,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        let request = claimed.request(models, user_dirs);
        self.start(&request, Some(claimed), observer, interrupt)
    }

    /// Bytes of weights and prompts that are kept for the next request.
    pub fn loaded_bytes(&self) -> Bytes {
        self.loaded.bytes()
    }

    /// Drops everything that is kept for the next request, and gives the memory back to the system.
    #[doc(alias = "unload")]
    pub fn release(&mut self) {
        self.idle = None;
        self.loaded.release();
        cleanup_memory(true);
    }

    fn start(
        &mut self,
        request: &Request,
        claimed: Option<ClaimedRun>,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<SavedImage>> {
        self.idle = None;
        let monitor = memory::monitor();
        let run = Run::open(request, claimed, &mut self.loaded, &monitor, observer, interrupt);
        let outcome = run.and_then(|mut run| {
            let outcome = run.generate();
            if let Err(error) = &outcome
                && !matches!(error, Error::Interrupted)
            {
                // What was computed with may be what failed.
                run.forget_cached();
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
