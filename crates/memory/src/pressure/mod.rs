//! Memory pressure: whether memory is running short on this machine, so that a run can free some before other
//! programs must.
//!
//! The figures come from [`MemoryDomain`]s: the machine itself, and every control group with a limit that the
//! process is in (version 1 or 2). Judging them is a pure function; a [`Watcher`] repeats it.

#[cfg(any(target_os = "linux", test))]
mod groups;
mod judge;
#[cfg(any(target_os = "linux", test))]
pub(crate) mod linux;
#[cfg(not(target_os = "linux"))]
mod other_systems;
#[cfg(any(target_os = "linux", test))]
mod stall;
mod watcher;

use serde::Serialize;

use crate::Bytes;
pub use watcher::Watcher;

#[cfg(target_os = "linux")]
use linux::System;
#[cfg(not(target_os = "linux"))]
use other_systems::System;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pressure {
    /// There is enough memory.
    #[default]
    Calm,
    /// Little is left: a run should free what it can do without.
    Tight,
    /// Almost nothing is left: the system is about to slow down or kill processes.
    Critical,
}

/// A limit on memory (the machine's or a control group's) and what is left below it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemoryDomain {
    /// The limit: the memory of the machine or of the control group.
    pub total: Bytes,
    /// Bytes that can be allocated now without swapping or evicting pages in use.
    pub available: Bytes,
    /// The share of the last ten seconds, in percent, in which some tasks were stalled on memory (PSI). 0 if
    /// the system does not report it.
    pub some_stalled: f64,
    /// The same for all tasks at once.
    pub all_stalled: f64,
    /// The kernel's own memory pressure level (macOS). It then decides alone: macOS leaves little available at
    /// any time, and compresses what is idle.
    pub said: Option<Pressure>,
}
