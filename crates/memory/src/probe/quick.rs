//! The two figures that are read many times a second, for a few microseconds each.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

use crate::Bytes;

/// Reads the resident size of this process and the machine's available memory repeatedly.
pub(crate) struct QuickProbe(Source);

enum Source {
    /// Files of `/proc` that stay open.
    #[cfg(target_os = "linux")]
    Files(files::Files),
    /// The `sysinfo` crate.
    System(Box<System>, Pid),
    /// Unsupported system.
    Nothing,
}

impl QuickProbe {
    pub(crate) fn open() -> Self {
        #[cfg(target_os = "linux")]
        if let Some(files) = files::Files::open() {
            return Self(Source::Files(files));
        }
        match (System::new(), get_current_pid()) {
            (Ok(system), Ok(id)) => Self(Source::System(Box::new(system), id)),
            _ => Self(Source::Nothing),
        }
    }

    /// Resident bytes of this process; 0 if unknown.
    pub(crate) fn resident(&mut self) -> Bytes {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Source::Files(files) => files.resident(),
            Source::System(system, id) => {
                let what = ProcessRefreshKind::nothing().with_memory();
                system.refresh_processes_specifics(ProcessesToUpdate::Some(&[*id]), false, what);
                Bytes(system.process(*id).map_or(0, |process| process.memory()))
            }
            Source::Nothing => Bytes(0),
        }
    }

    /// Bytes that can be allocated now without swapping; 0 if unknown.
    pub(crate) fn available(&mut self) -> Bytes {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Source::Files(files) => files.available(),
            Source::System(system, _) => {
                system.refresh_memory();
                super::available(system)
            }
            Source::Nothing => Bytes(0),
        }
    }
}

#[cfg(target_os = "linux")]
mod files {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use crate::Bytes;
    use crate::probe::proc;

    pub(super) struct Files {
        statm: File,
        meminfo: File,
        page: u64,
    }

    impl Files {
        pub(super) fn open() -> Option<Self> {
            Some(Self {
                statm: File::open("/proc/self/statm").ok()?,
                meminfo: File::open("/proc/meminfo").ok()?,
                page: proc::page_bytes(&fs::read("/proc/self/auxv").ok()?)?,
            })
        }

        pub(super) fn resident(&self) -> Bytes {
            let pages = beginning(&self.statm, &mut [0; 128], proc::resident_pages);
            Bytes(pages.unwrap_or_default() * self.page)
        }

        pub(super) fn available(&self) -> Bytes {
            // It is in the third line.
            let found = |text: &str| proc::field(text, "MemAvailable");
            beginning(&self.meminfo, &mut [0; 256], found).unwrap_or_default()
        }
    }

    /// Parses the beginning of a `/proc` file, which the kernel generates anew for every read.
    fn beginning<T>(file: &File, buffer: &mut [u8], parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let length = file.read_at(buffer, 0).ok()?;
        parse(str::from_utf8(&buffer[..length]).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_info;

    #[test]
    fn says_what_the_slow_way_says() {
        let _alone = crate::PROCESS.lock();
        let mut quick = QuickProbe::open();
        let slow = memory_info();
        let near = |one: Bytes, other: Bytes| one.0.abs_diff(other.0) <= other.0 / 4 + (16 << 20);
        assert!(
            near(quick.resident(), slow.process),
            "{:?} {slow:?}",
            quick.resident()
        );
        assert!(
            near(quick.available(), slow.system_available),
            "{:?} {slow:?}",
            quick.available()
        );
    }

    #[test]
    fn sees_every_change() {
        let _alone = crate::PROCESS.lock();
        let mut quick = QuickProbe::open();
        let before = quick.resident();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let during = quick.resident();
        drop(block);
        assert!(during.0 >= before.0 + (48 << 20), "{before} {during}");
    }
}
