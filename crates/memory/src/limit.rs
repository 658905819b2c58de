//! Limits on the memory of a process, and what a process may use under one.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// A limit on the memory of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Limit {
    /// A budget that the user set.
    #[serde(rename = "asked_for")]
    Requested,
    /// The available memory of the machine.
    Available,
    /// A control group that the process is in.
    ControlGroup {
        /// The group's directory.
        path: PathBuf,
        /// The limit for all processes of the group together.
        limit: Bytes,
    },
    /// The limit on the address space (`RLIMIT_AS`, `ulimit -v`).
    AddressSpace {
        /// Its size.
        limit: Bytes,
    },
    /// The limit on the data segment (`RLIMIT_DATA`, `ulimit -d`).
    Data {
        /// Its size.
        limit: Bytes,
    },
    /// The available memory of a GPU with memory of its own.
    Device,
    /// The recommended working set of a GPU that shares the machine's memory (Metal).
    WorkingSet {
        /// Its size.
        limit: Bytes,
    },
    /// The limit on memory that GPUs may wire, which the user set (macOS, `iogpu.wired_limit_mb`).
    WiredByGpu {
        /// Its size.
        limit: Bytes,
    },
    /// What macOS makes room for by compressing the memory of idle programs.
    Compressible,
}

/// `available memory`, `the control group /sys/fs/cgroup/job with 1.0GB`
impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => write!(formatter, "the requested budget"),
            Self::Available => write!(formatter, "available memory"),
            Self::Device => write!(formatter, "the GPU's available memory"),
            Self::WorkingSet { limit } => write!(formatter, "the GPU's recommended working set of {limit}"),
            Self::WiredByGpu { limit } => {
                write!(
                    formatter,
                    "the limit on the GPU's wired memory (iogpu.wired_limit_mb) of {limit}"
                )
            }
            Self::Compressible => write!(
                formatter,
                "what macOS makes room for by compressing idle programs"
            ),
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

/// The memory that a process may use under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// All that the process may use, including what it uses now.
    pub bytes: Bytes,
    /// What is left for other processes and for the unforeseen.
    pub margin: Bytes,
    /// The limit that decides it.
    pub limit: Limit,
}

impl Allowance {
    /// The memory that the process should plan with.
    pub fn budget(&self) -> Bytes {
        self.bytes.saturating_sub(self.margin)
    }

    /// This allowance on a GPU that shares the machine's memory and has `limit`, a
    /// [`Limit::WorkingSet`] or a [`Limit::WiredByGpu`].
    #[must_use]
    pub fn within_gpu(self, limit: Limit) -> Self {
        match limit {
            Limit::WorkingSet { limit: bytes } | Limit::WiredByGpu { limit: bytes }
                if bytes < self.budget() =>
            {
                Self {
                    bytes,
                    margin: Bytes(0),
                    limit,
                }
            }
            _ => self,
        }
    }

    /// The allowance of a process that uses `own` bytes when `available` bytes are available to all. The
    /// margin is larger than the threshold of memory pressure.
    pub(crate) fn available(available: Bytes, own: Bytes) -> Self {
        let bytes = Bytes(available.0.saturating_add(own.0));
        Self {
            bytes,
            margin: machine_margin(bytes),
            limit: Limit::Available,
        }
    }
}

/// The part of `available` bytes of a machine or a device that is left for other processes: 10%, at least 768
/// MB.
pub fn machine_margin(available: Bytes) -> Bytes {
    const LEAST: u64 = 768 << 20;
    Bytes(LEAST.max(available.0 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_with_less_has_the_smaller_budget() {
        let host = Allowance::available(Bytes(20 << 30), Bytes(0));
        let limit = |gigabytes: u64| Limit::WorkingSet {
            limit: Bytes(gigabytes << 30),
        };
        assert_eq!(host.clone().within_gpu(limit(19)), host);
        let within = host.within_gpu(limit(4));
        assert_eq!((within.budget(), within.limit), (Bytes(4 << 30), limit(4)));
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
