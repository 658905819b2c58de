//! Bytes: what memory there is, what a run uses and when, and whether it is running short.
//!
//! [`Bytes`] is the unit, [`memory_info`] the reading. A [`Monitor`] watches a run, and its [`Timeline`] is what it saw.
//! A [`Watcher`] says how short memory is on the machine, [`allowance`] how much this process may come to have.

mod allowance;
mod bytes;
mod history;
mod monitor;
mod pressure;
mod probe;
mod series;
mod timeline;

pub use allowance::{Allowance, Limit, allowance, machine_margin};
pub use bytes::Bytes;
pub use monitor::{Counters, Monitor};
pub use pressure::{Pressure, Room, Watcher};
pub use probe::{DeviceInfo, MemoryInfo, memory_info};
pub use series::Sample;
pub use timeline::{Reading, Stage, Timeline};

/// Held by tests that look at the memory of the process, which they share.
#[cfg(test)]
static PROCESS: std::sync::Mutex<()> = std::sync::Mutex::new(());
