//! What a run reports of its stages and its memory, to its monitor and to its observer.

use sd_memory::{Bytes, Monitor};

use crate::event::{Event, Observer};
use crate::memory::{cleanup_memory, log_cleanup, log_memory_status};
use crate::stage_progress::StageProgress;

/// The receivers of the reports of a run.
pub(super) struct Report<'a> {
    pub(super) monitor: &'a Monitor,
    pub(super) observer: &'a mut dyn Observer,
    /// Whether the observer receives readings of the memory: during the first group of images, and at the end.
    pub(super) tells_memory: bool,
}

impl Report<'_> {
    /// Begins the stage `name`, which reads about `expected` bytes of weights, if that is known.
    pub(super) fn stage(&mut self, name: &str, expected: Option<Bytes>) {
        self.monitor.stage(name);
        self.observer.observe(&Event::Stage {
            stage: name,
            progress: StageProgress::begin(expected),
        });
    }

    /// Runs a cleanup and reads the memory.
    pub(super) fn clean(&mut self, label: &str, aggressive: bool) {
        if self.tells_memory {
            log_cleanup(label, aggressive, self.monitor, self.observer);
        } else {
            self.monitor.clean(label, || cleanup_memory(aggressive));
        }
    }

    /// Reads the memory.
    pub(super) fn read(&mut self, label: &str) {
        if self.tells_memory {
            log_memory_status(label, self.monitor, self.observer);
        } else {
            self.monitor.read(label);
        }
    }
}
