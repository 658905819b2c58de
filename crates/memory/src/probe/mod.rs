//! Readings of the system's memory and of this process.

#[cfg(any(target_os = "linux", test))]
pub(crate) mod proc;
mod quick;

use std::fmt;

use serde::Serialize;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

use crate::Bytes;
pub(crate) use quick::QuickProbe;

/// Memory at one moment, as the system reports it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct MemoryInfo {
    /// Bytes of this process: resident ones, or those of [`with_process`](Self::with_process).
    pub process: Bytes,
    /// The highest value of `process` so far, if the system records it.
    pub process_peak: Option<Bytes>,
    /// Bytes in use by all processes on this machine.
    pub system_used: Bytes,
    /// Bytes that can be allocated now without swapping.
    pub system_available: Bytes,
    /// Total bytes of the machine.
    pub system_total: Bytes,
}

/// The memory that an operating system counts against this process, where that is not the resident size: the
/// physical footprint on macOS, which has compressed pages and GPU buffers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessMemory {
    /// Now.
    pub now: Bytes,
    /// The peak since the process began.
    pub peak: Bytes,
}

impl MemoryInfo {
    /// This reading with the memory of the process as `process` has it, if it does.
    #[must_use]
    pub fn with_process(self, process: Option<ProcessMemory>) -> Self {
        match process {
            Some(ProcessMemory { now, peak }) => Self {
                process: now,
                process_peak: Some(peak),
                ..self
            },
            None => self,
        }
    }
}

/// The memory of a GPU with memory of its own, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DeviceInfo {
    /// Bytes in use on the device by all processes, as its driver reports.
    pub used: Bytes,
    /// Total bytes of the device.
    pub total: Bytes,
}

/// `Device=5.6GB/79.2GB (7.1%)`
impl fmt::Display for DeviceInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device={}", Used(self.used, self.total))
    }
}

/// A part of a whole: `5.6GB/79.2GB (7.1%)`
struct Used(Bytes, Bytes);

impl fmt::Display for Used {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(used, total) = self;
        let share = 100.0 * used.0 as f64 / total.0.max(1) as f64;
        write!(formatter, "{used}/{total} ({share:.1}%)")
    }
}

/// Reads the system's figures; all zero on an unsupported system. Takes well under a millisecond.
pub fn memory_info() -> MemoryInfo {
    let Ok(mut system) = System::new() else {
        return MemoryInfo::default();
    };
    system.refresh_memory();
    let process = get_current_pid().ok().and_then(|id| {
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[id]),
            false,
            ProcessRefreshKind::nothing().with_memory(),
        );
        system.process(id).map(|process| Bytes(process.memory()))
    });
    MemoryInfo {
        process: process.unwrap_or_default(),
        process_peak: process_peak(),
        system_used: Bytes(system.used_memory()),
        system_available: available(&system),
        system_total: Bytes(system.total_memory()),
    }
}

/// The available memory of a system whose figures were just read.
pub(crate) fn available(system: &System) -> Bytes {
    #[cfg(target_os = "macos")]
    if let Some(mac) = crate::mac::MacMemory::read() {
        return mac.available();
    }
    Bytes(system.available_memory())
}

/// The kernel's high-water mark of the resident size (`VmHWM`).
#[cfg(target_os = "linux")]
pub(crate) fn process_peak() -> Option<Bytes> {
    proc::field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn process_peak() -> Option<Bytes> {
    None
}

/// `Process=22.8GB, System=35.4GB/64.0GB (55.3%)`
impl fmt::Display for MemoryInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Process={}, System={}",
            self.process,
            Used(self.system_used, self.system_total),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_this_process_allocates() {
        let _alone = crate::PROCESS.lock();
        let before = memory_info();
        assert!(before.process > Bytes(0) && before.process < before.system_total);
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let during = memory_info();
        assert!(
            during.process >= Bytes(before.process.0 + (48 << 20)),
            "{before:?} {during:?}"
        );
        if let Some(peak) = during.process_peak {
            assert!(peak.0 + (1 << 20) >= during.process.0);
        }
        drop(block);
    }

    #[test]
    fn what_the_system_counts_against_the_process_takes_the_place_of_the_resident_size() {
        let info = MemoryInfo {
            process: Bytes(5),
            system_total: Bytes(9),
            ..MemoryInfo::default()
        };
        assert_eq!(info.with_process(None), info);
        let counted = ProcessMemory {
            now: Bytes(7),
            peak: Bytes(8),
        };
        let expected = MemoryInfo {
            process: Bytes(7),
            process_peak: Some(Bytes(8)),
            ..info
        };
        assert_eq!(info.with_process(Some(counted)), expected);
    }

    #[test]
    fn reads_like_the_log_lines() {
        let gigabytes = |number: f64| Bytes((number * f64::from(1 << 30)) as u64);
        let info = MemoryInfo {
            process: gigabytes(22.8),
            process_peak: None,
            system_used: gigabytes(35.4),
            system_available: gigabytes(28.6),
            system_total: gigabytes(64.0),
        };
        assert_eq!(info.to_string(), "Process=22.8GB, System=35.4GB/64.0GB (55.3%)");
        let device = DeviceInfo {
            used: gigabytes(5.6),
            total: gigabytes(79.2),
        };
        assert_eq!(device.to_string(), "Device=5.6GB/79.2GB (7.1%)");
        let small = MemoryInfo {
            process: gigabytes(0.0625),
            ..info
        };
        assert!(small.to_string().starts_with("Process=64.0MB, "), "{small}");
    }
}
