//! What a run tells while it works, and how it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_memory::{Reading, Timeline};

use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// Something that happened in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Every setting is known; the work begins.
    Started {
        /// The settings.
        recipe: &'a Recipe,
    },
    /// It is known where each byte will live.
    Planned {
        /// The plan.
        plan: &'a Plan,
    },
    /// A run goes on that was interrupted.
    Resumed {
        /// The run's id.
        run: &'a str,
        /// Steps that are done, of all images.
        steps_done: usize,
        /// Steps that all images take.
        steps: usize,
    },
    /// The memory was read at one of the points that a run is watched at.
    Memory(&'a Reading),
    /// A denoising step ended.
    Step {
        /// Which image, from 0.
        image: usize,
        /// How many images.
        images: usize,
        /// Which step of this image, from 1.
        step: usize,
        /// How many steps an image takes.
        steps: usize,
        /// How long the step took.
        duration: Duration,
    },
    /// Something the user should know of went otherwise than asked.
    Warning(&'a str),
    /// Something that was asked for cannot be had, and the run goes on without.
    LeftOut {
        /// What it is: ``the LoRA `detail` ``, say.
        what: &'a str,
        /// Why it cannot be had.
        reason: &'a str,
    },
    /// An image was saved.
    Saved(&'a SavedImage),
    /// The run ends early. What it has done is kept, and [`resume()`](crate::resume()) goes on with it.
    Kept {
        /// The run's id.
        run: &'a str,
    },
    /// Everything was saved.
    Finished {
        /// How long the run took.
        duration: Duration,
    },
    /// The run is over, well or not, and gave back what it held. This is the last event.
    Measured {
        /// Its memory from beginning to end.
        timeline: &'a Timeline,
    },
}

/// An image on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    /// The PNG file.
    pub image: PathBuf,
    /// The JSON file beside it.
    pub metadata: PathBuf,
    /// Which image of the run, from 0.
    pub index: usize,
    /// The seed that generates it again.
    pub seed: u64,
}

impl SavedImage {
    /// The PNG's file name.
    pub fn file_name(&self) -> &Path {
        self.image.file_name().map_or(&self.image, Path::new)
    }

    /// Whether the PNG file is still where it was saved.
    pub(crate) fn is_there(&self) -> bool {
        self.image.exists()
    }
}

/// Who is told.
pub trait Observer {
    /// Called on the run's own thread, between pieces of work.
    fn observe(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn observe(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// A flag that asks a run to stop between two pieces of work. Its clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks the run to stop. Safe to call from any thread, also from a signal handler's.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to stop.
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
