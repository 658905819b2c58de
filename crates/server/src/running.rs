//! [`Running`]: a job that runs, here or on another machine.

use std::sync::{Arc, Mutex};

use sd_pipeline::Interrupt;

use crate::job::{JobId, MemoryView, PreviewView, Progress, ResultImage};
use crate::lock::lock;

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: JobId,
    pub(crate) user: String,
    pub(crate) interrupt: Interrupt,
    cancelled: Mutex<bool>,
    pub(crate) progress: Mutex<Option<Progress>>,
    /// The images that are saved already, if it runs here.
    pub(crate) images: Mutex<Vec<ResultImage>>,
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
            images: Mutex::new(Vec::new()),
            preview: Mutex::new(None),
            readings: Mutex::new(Vec::new()),
        })
    }

    /// Asks the run to end between two pieces of work.
    pub(crate) fn cancel(&self) {
        *lock(&self.cancelled) = true;
        self.interrupt.raise();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *lock(&self.cancelled)
    }
}
