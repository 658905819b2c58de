//! Linux: `/proc/meminfo`, the pressure stall information, and the control groups of the process.
//!
//! The formats are documented by the kernel in `filesystems/proc.rst` and `accounting/psi.rst`.

use std::fs;
use std::path::{Path, PathBuf};

use super::MemoryDomain;
use super::groups::{Group, groups};
use super::stall::with_stalls;
use crate::probe::proc;

/// The files of one machine.
#[derive(Debug)]
pub(crate) struct System {
    /// `/`, except in tests.
    root: PathBuf,
    /// The control groups, from the process's own to the root.
    groups: Vec<Group>,
}

impl System {
    #[cfg(target_os = "linux")]
    pub(super) fn open() -> Self {
        Self::below(Path::new("/"))
    }

    /// The machine whose files are below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        Self {
            root: root.to_owned(),
            groups: groups(&read("proc/self/mountinfo"), &read("proc/self/cgroup")),
        }
    }

    /// The machine, and the control groups with a limit. Empty if nothing can be read.
    pub(super) fn domains(&mut self) -> Vec<MemoryDomain> {
        let groups = self.limited_groups().map(|(_, domain)| domain);
        self.machine().into_iter().chain(groups).collect()
    }

    /// The control groups with a limit, and their directories.
    pub(crate) fn limited_groups(&self) -> impl Iterator<Item = (&Path, MemoryDomain)> {
        let limited = |group| Some((Group::folder(group), group.domain(&self.root)?));
        self.groups.iter().filter_map(limited)
    }

    pub(crate) fn machine(&self) -> Option<MemoryDomain> {
        let meminfo = fs::read_to_string(self.root.join("proc/meminfo")).ok()?;
        let total = proc::field(&meminfo, "MemTotal")?;
        let available = proc::field(&meminfo, "MemAvailable")?;
        Some(with_stalls(
            total,
            available,
            &self.root.join("proc/pressure/memory"),
        ))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Bytes;
    use tempfile::TempDir;

    /// A made-up machine: files under a folder of their own.
    pub(crate) struct Machine(TempDir);

    impl Machine {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(crate) fn system(&self) -> System {
            System::below(self.0.path())
        }

        pub(crate) fn meminfo(&self, total: u64, available: u64) {
            let (total, available) = (total >> 10, available >> 10);
            let text = format!("MemTotal: {total} kB\nMemFree: 17 kB\nMemAvailable: {available} kB\n");
            self.write("proc/meminfo", &text);
        }

        pub(crate) fn root(&self) -> &Path {
            self.0.path()
        }

        pub(crate) fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Whole at once, for someone may be reading.
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, path).unwrap();
        }

        pub(crate) fn group(&self, folder: &str, maximum: &str, high: &str, current: u64, cached: u64) {
            self.write(&format!("{folder}/memory.max"), &format!("{maximum}\n"));
            self.write(&format!("{folder}/memory.high"), &format!("{high}\n"));
            self.write(&format!("{folder}/memory.current"), &format!("{current}\n"));
            let stat = format!(
                "anon 4096\nfile 9\ninactive_file {cached}\nactive_file 100\nslab_reclaimable 10\nslab 99\n"
            );
            self.write(&format!("{folder}/memory.stat"), &stat);
        }
    }

    pub(crate) const MOUNTS: &str = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn limits_of_groups_count_beside_the_machine_s() {
        let machine = Machine::new();
        machine.meminfo(8 << 30, 4 << 30);
        machine.write(
            "proc/pressure/memory",
            "some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=0.50 avg60=0\n",
        );
        machine.write("proc/self/mountinfo", MOUNTS);
        machine.write("proc/self/cgroup", "0::/job/task\n");
        machine.group("sys/fs/cgroup/job/task", "max", "max", 900 << 20, 0);
        machine.group(
            "sys/fs/cgroup/job",
            "2147483648",
            "1073741824",
            900 << 20,
            300 << 20,
        );
        machine.write(
            "sys/fs/cgroup/job/memory.pressure",
            "some avg10=22.00\nfull avg10=11.00\n",
        );
        let domains = machine.system().domains();
        let expected = [
            MemoryDomain {
                total: Bytes(8 << 30),
                available: Bytes(4 << 30),
                some_stalled: 1.5,
                all_stalled: 0.5,
                said: None,
            },
            MemoryDomain {
                total: Bytes(1 << 30),
                available: Bytes((1 << 30) - (600 << 20) + 110),
                some_stalled: 22.0,
                all_stalled: 11.0,
                said: None,
            },
        ];
        assert_eq!(domains, expected);
    }

    #[test]
    fn invalid_text_is_no_limit_and_no_panic() {
        let machine = Machine::new();
        assert_eq!(machine.system().domains(), []);
        machine.write("proc/self/mountinfo", MOUNTS);
        machine.write("proc/self/cgroup", "0::/job\n");
        machine.write("proc/meminfo", "MemTotal: lots\nMemAvailable: -3 kB\n");
        machine.group("sys/fs/cgroup/job", "0", "max", u64::MAX, u64::MAX);
        let nothing = MemoryDomain {
            total: Bytes(0),
            available: Bytes(0),
            some_stalled: 0.0,
            all_stalled: 0.0,
            said: None,
        };
        assert_eq!(machine.system().domains(), [nothing]);
        machine.write("sys/fs/cgroup/job/memory.current", "many\n");
        assert_eq!(machine.system().domains(), []);
    }
}
