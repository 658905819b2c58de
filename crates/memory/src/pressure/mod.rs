//! Whether memory is running short on this machine, so that a run can give some up before others have to.
//!
//! What is looked at are [`Room`]s: the machine itself, and every control group with a limit that the process is in
//! (of either version). Judging them is a pure function; [`Watcher`] does it over and over.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(any(target_os = "linux", test))]
mod groups;
mod judge;
#[cfg(any(target_os = "linux", test))]
pub(crate) mod linux;
mod watcher;

use serde::Serialize;

use crate::Bytes;
pub use watcher::Watcher;

#[cfg(not(target_os = "linux"))]
use elsewhere::System;
#[cfg(target_os = "linux")]
use linux::System;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pressure {
    /// There is enough.
    #[default]
    Calm,
    /// There is little left: what can be done without should be given up.
    Tight,
    /// There is next to nothing left: others are about to be slowed down or stopped for it.
    Critical,
}

/// A limit on memory and what is left below it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Room {
    /// The limit: what the machine has, or what a control group may have.
    pub total: Bytes,
    /// What could be had now without pushing anything out that is in use.
    pub available: Bytes,
    /// For how much of the last ten seconds some work stood still for want of memory, in percent. Zero where the
    /// system does not say.
    pub some_stalled: f64,
    /// The same of all work at once.
    pub all_stalled: f64,
    /// How short of memory the system says it is (macOS); calm where it says nothing.
    pub said: Pressure,
}
