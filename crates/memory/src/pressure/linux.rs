//! Linux: `/proc/meminfo`, the pressure stall information, and the control groups that the process is in.
//!
//! The formats are those of the kernel's documentation: `filesystems/proc.rst` and `accounting/psi.rst`.

use std::fs;
use std::path::{Path, PathBuf};

use super::groups::{Group, groups};
use super::{Pressure, Room};
use crate::Bytes;
use crate::probe::proc;

/// The files of one machine.
#[derive(Debug)]
pub(crate) struct System {
    /// `/` but in tests.
    root: PathBuf,
    /// The control groups, the process's own first.
    groups: Vec<Group>,
}

impl System {
    pub(super) fn open() -> Self {
        Self::below(Path::new("/"))
    }

    /// The machine whose files lie below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        Self {
            root: root.to_owned(),
            groups: groups(&read("proc/self/mountinfo"), &read("proc/self/cgroup")),
        }
    }

    /// The machine, and the groups that have a limit. Empty where nothing can be read.
    pub(super) fn rooms(&mut self) -> Vec<Room> {
        let groups = self.limited_groups().map(|(_, room)| room);
        self.machine().into_iter().chain(groups).collect()
    }

    /// The groups that have a limit, by their folders.
    pub(crate) fn limited_groups(&self) -> impl Iterator<Item = (&Path, Room)> {
        let limited = |group| Some((Group::folder(group), group.room(&self.root)?));
        self.groups.iter().filter_map(limited)
    }

    pub(crate) fn machine(&self) -> Option<Room> {
        let meminfo = fs::read_to_string(self.root.join("proc/meminfo")).ok()?;
        let total = proc::field(&meminfo, "MemTotal")?;
        let available = proc::field(&meminfo, "MemAvailable")?;
        Some(room(total, available, &self.root.join("proc/pressure/memory")))
    }
}

/// A limit of `total`, below which so much is `available`, where the kernel tells of stalls in the file `pressure`.
pub(super) fn room(total: Bytes, available: Bytes, pressure: &Path) -> Room {
    // A kernel may be built or booted without it.
    let stalls = proc::stalls(&fs::read_to_string(pressure).unwrap_or_default());
    Room {
        total,
        available: available.min(total),
        some_stalled: stalls.some,
        all_stalled: stalls.full,
        said: Pressure::Calm,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
        let rooms = machine.system().rooms();
        let expected = [
            Room {
                total: Bytes(8 << 30),
                available: Bytes(4 << 30),
                some_stalled: 1.5,
                all_stalled: 0.5,
                said: Pressure::Calm,
            },
            Room {
                total: Bytes(1 << 30),
                available: Bytes((1 << 30) - (600 << 20) + 110),
                some_stalled: 22.0,
                all_stalled: 11.0,
                said: Pressure::Calm,
            },
        ];
        assert_eq!(rooms, expected);
    }

    #[test]
    fn nonsense_is_no_room_and_no_panic() {
        let machine = Machine::new();
        assert_eq!(machine.system().rooms(), []);
        machine.write("proc/self/mountinfo", MOUNTS);
        machine.write("proc/self/cgroup", "0::/job\n");
        machine.write("proc/meminfo", "MemTotal: lots\nMemAvailable: -3 kB\n");
        machine.group("sys/fs/cgroup/job", "0", "max", u64::MAX, u64::MAX);
        let nothing = Room {
            total: Bytes(0),
            available: Bytes(0),
            some_stalled: 0.0,
            all_stalled: 0.0,
            said: Pressure::Calm,
        };
        assert_eq!(machine.system().rooms(), [nothing]);
        machine.write("sys/fs/cgroup/job/memory.current", "many\n");
        assert_eq!(machine.system().rooms(), []);
    }
}
