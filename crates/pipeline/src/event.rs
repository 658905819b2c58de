//! The events of a run, and the flag that interrupts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_memory::{Reading, Timeline};

use crate::plan::Plan;
use crate::preview::Preview;
use crate::recipe::Recipe;
use crate::stage_progress::StageProgress;
use crate::{Error, Result};

/// An event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The next of several requests begins.
    Request {
        /// Which one, from 1.
        number: usize,
        /// The number of requests.
        count: usize,
        /// Its prompt.
        prompt: &'a str,
    },
    /// All settings are known, and the run starts.
    Started {
        /// The settings.
        recipe: &'a Recipe,
    },
    /// The memory plan is made.
    Planned {
        /// The plan.
        plan: &'a Plan,
    },
    /// An interrupted run is resumed.
    Resumed {
        /// The run's id.
        run: &'a str,
        /// Finished steps of all images.
        steps_done: usize,
        /// Steps of all images.
        steps: usize,
    },
    /// A stage begins. With several groups of images, stages repeat.
    Stage {
        /// The stage: `open`, `encode`, `encode image`, `load`, `denoise`, `refine`, `decode` or `upscale`; before the
        /// runs of several requests `encode prompts`.
        stage: &'a str,
        /// Its work, for whoever asks for it while the stage runs.
        progress: StageProgress,
    },
    /// A reading of the memory.
    Memory(&'a Reading),
    /// A denoising step has finished.
    Step {
        /// Which image, from 0.
        image: usize,
        /// The number of images.
        images: usize,
        /// Which step of this image, from 1.
        step: usize,
        /// The number of steps of an image.
        steps: usize,
        /// The duration of the step.
        duration: Duration,
    },
    /// What an image is expected to become, after a step of it. Only for an observer that
    /// [wants it](Observer::wants_previews).
    Preview(&'a Preview),
    /// A warning for the user.
    Warning(&'a str),
    /// A requested part failed, and the run continues without it.
    LeftOut {
        /// What it is, such as ``the LoRA `detail` ``.
        what: &'a str,
        /// Why it failed.
        reason: &'a str,
    },
    /// An image was saved.
    Saved(&'a SavedImage),
    /// The run ends early and its state is kept: [`Engine::resume`](crate::Engine::resume) continues it.
    Kept {
        /// The run's id.
        run: &'a str,
    },
    /// All images are saved.
    Finished {
        /// The duration of the run.
        duration: Duration,
    },
    /// The run is over, successfully or not, and has freed what it held. This is the last event.
    Measured {
        /// Its memory over time.
        timeline: &'a Timeline,
    },
}

/// A saved image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    /// The image file.
    pub image: PathBuf,
    /// The JSON file with its metadata.
    pub metadata: PathBuf,
    /// Which image of the run, from 0.
    pub index: usize,
    /// The seed of this image.
    pub seed: u64,
    /// The number under which it is saved, which makes its file name.
    pub(crate) number: usize,
}

impl SavedImage {
    /// The name of the image file.
    pub fn file_name(&self) -> &Path {
        self.image.file_name().map_or(&self.image, Path::new)
    }

    /// Whether the image file still exists.
    pub(crate) fn is_there(&self) -> bool {
        self.image.exists()
    }
}

/// Receives the events of a run.
pub trait Observer {
    /// Called on the thread of the run, between two pieces of work.
    fn observe(&mut self, event: &Event<'_>);

    /// Whether it receives [`Event::Preview`], which otherwise is not made. It is asked when a network is loaded.
    fn wants_previews(&self) -> bool {
        false
    }
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn observe(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// A flag that interrupts a run between two pieces of work. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Interrupts the run. May be called from any thread, also from a signal handler.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was interrupted.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_raised() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}
