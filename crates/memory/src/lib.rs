//! Memory: how much there is, how much a run uses and when, and whether it is running short.
//!
//! [`Bytes`] is the unit, [`memory_info`] takes a reading. A [`Monitor`] samples the memory of a run and
//! gives its [`Timeline`]. A [`Watcher`] reports memory pressure on the machine, [`allowance`] how much
//! memory this process may use.

mod allowance;
mod bytes;
mod history;
mod limit;
mod mac;
mod monitor;
mod pressure;
mod probe;
mod series;
mod timeline;

pub use allowance::allowance;
pub use bytes::Bytes;
pub use limit::{Allowance, Limit, machine_margin};
pub use mac::{gpu_wired_limit, shared_gpu_limit};
pub use monitor::{Counters, Monitor};
pub use pressure::{MemoryDomain, Pressure, Watcher};
pub use probe::{DeviceInfo, MemoryInfo, ProcessMemory, memory_info};
pub use series::Sample;
pub use timeline::{Reading, Stage, Timeline};

/// Locked by tests that measure the memory of the process, which they share.
#[cfg(test)]
static PROCESS: std::sync::Mutex<()> = std::sync::Mutex::new(());
