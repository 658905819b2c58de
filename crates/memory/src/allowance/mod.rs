//! How much memory this process may come to have, and what says so.
//!
//! The machine is only one of those that have a say: a container is a control group with a limit, and a shell's `ulimit` bounds
//! the process itself. The tightest of all counts.

#[cfg(any(target_os = "linux", test))]
mod limits;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// What bounds the memory of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Limit {
    /// Whoever started the run said so.
    AskedFor,
    /// What is available on the machine.
    Available,
    /// A control group that the process is in.
    ControlGroup {
        /// The group's folder.
        path: PathBuf,
        /// What all of the group's processes may have together.
        limit: Bytes,
    },
    /// The addresses that the process may have (`RLIMIT_AS`, `ulimit -v`).
    AddressSpace {
        /// How many.
        limit: Bytes,
    },
    /// The data that the process may have (`RLIMIT_DATA`, `ulimit -d`).
    Data {
        /// How many bytes.
        limit: Bytes,
    },
    /// What is available on a GPU with memory of its own.
    Device,
    /// What a GPU that shares the machine's memory works well within (Metal's recommended working set).
    WorkingSet {
        /// How many bytes.
        limit: Bytes,
    },
}

/// `available memory`, `the control group /sys/fs/cgroup/job with 1.0GB`
impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskedFor => write!(formatter, "what was asked for"),
            Self::Available => write!(formatter, "available memory"),
            Self::Device => write!(formatter, "the GPU's available memory"),
            Self::WorkingSet { limit } => write!(formatter, "the GPU's recommended working set of {limit}"),
            Self::ControlGroup { path, limit } => {
                write!(formatter, "the control group {} of {limit}", path.display())
            }
            Self::AddressSpace { limit } => {
                write!(formatter, "the limit on addresses (ulimit -v) of {limit}")
            }
            Self::Data { limit } => write!(formatter, "the limit on data (ulimit -d) of {limit}"),
        }
    }
}

/// What a process may come to have by one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// All that it may have, what it has now included.
    pub bytes: Bytes,
    /// What is left for others, and for what nobody foresees.
    pub margin: Bytes,
    /// What says so.
    pub limit: Limit,
}

impl Allowance {
    /// What the process should plan with.
    pub fn budget(&self) -> Bytes {
        self.bytes.saturating_sub(self.margin)
    }

    /// What a process that has `own` bytes may have where so much is `available` to everybody. The margin is larger than what a
    /// machine is found short at.
    fn available(available: Bytes, own: Bytes) -> Self {
        let bytes = Bytes(available.0.saturating_add(own.0));
        Self {
            bytes,
            margin: machine_margin(bytes),
            limit: Limit::Available,
        }
    }
}

/// What of `available` bytes of a machine or a device is left for others: a tenth, and 768 MB at the least.
pub fn machine_margin(available: Bytes) -> Bytes {
    const LEAST: u64 = 768 << 20;
    Bytes(LEAST.max(available.0 / 10))
}

/// What this process may come to have: the tightest of all limits. Zero on a system that says nothing of its memory.
pub fn allowance() -> Allowance {
    #[cfg(target_os = "linux")]
    if let Some(tightest) = limits::tightest(std::path::Path::new("/")) {
        return tightest;
    }
    let memory = crate::memory_info();
    Allowance::available(memory.system_available, memory.process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_have_more_than_it_has() {
        let _alone = crate::PROCESS.lock();
        let (allowance, memory) = (allowance(), crate::memory_info());
        assert!(allowance.bytes > Bytes(0), "{allowance:?}");
        assert!(
            allowance.bytes.0 <= memory.system_total.0 + memory.process.0,
            "{allowance:?} {memory:?}"
        );
        assert!(allowance.budget() < allowance.bytes);
    }

    #[test]
    fn limits_read_like_sentences() {
        let limit = Bytes(1 << 30);
        let group = Limit::ControlGroup {
            path: PathBuf::from("/sys/fs/cgroup/job"),
            limit,
        };
        assert_eq!(group.to_string(), "the control group /sys/fs/cgroup/job of 1.0GB");
        assert_eq!(
            Limit::AddressSpace { limit }.to_string(),
            "the limit on addresses (ulimit -v) of 1.0GB"
        );
    }
}
