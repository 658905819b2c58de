//! Linux: `/proc/meminfo`, the pressure stall information, and the control groups (v2) that the process is in.
//!
//! The formats are those of the kernel's documentation: `filesystems/proc.rst`, `accounting/psi.rst` and
//! `admin-guide/cgroup-v2.rst`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{Pressure, Room};
use crate::Bytes;
use crate::probe::proc;

/// The files of one machine.
#[derive(Debug)]
pub(super) struct System {
    /// `/` but in tests.
    root: PathBuf,
    /// The folders of the control groups, the process's own first.
    groups: Vec<PathBuf>,
}

impl System {
    pub(super) fn open() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let groups = group_folders(&read("proc/self/mountinfo"), &read("proc/self/cgroup"));
        let inside = |folder: PathBuf| folder.strip_prefix("/").map(|folder| root.join(folder)).ok();
        Self {
            root: root.to_owned(),
            groups: groups.into_iter().filter_map(inside).collect(),
        }
    }

    /// The machine, and the groups that have a limit. Empty where nothing can be read.
    pub(super) fn rooms(&mut self) -> Vec<Room> {
        let machine = self.machine();
        let groups = self.groups.iter().filter_map(|folder| group(folder));
        machine.into_iter().chain(groups).collect()
    }

    fn machine(&self) -> Option<Room> {
        let meminfo = fs::read_to_string(self.root.join("proc/meminfo")).ok()?;
        let total = proc::field(&meminfo, "MemTotal")?;
        let available = proc::field(&meminfo, "MemAvailable")?;
        Some(room(total, available, &self.root.join("proc/pressure/memory")))
    }
}

fn room(total: Bytes, available: Bytes, pressure: &Path) -> Room {
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

/// What the group of `folder` leaves, if it has a limit. From `memory.high` on it is slowed down, so that this is a
/// limit as well as `memory.max`.
fn group(folder: &Path) -> Option<Room> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse().ok()
    };
    // `max` is no number: there is no limit.
    let limit = number("memory.max")
        .into_iter()
        .chain(number("memory.high"))
        .min()?;
    let current = number("memory.current")?;
    let reclaimable = reclaimable(&fs::read_to_string(folder.join("memory.stat")).unwrap_or_default());
    let in_use = current.saturating_sub(reclaimable);
    let available = Bytes(limit.saturating_sub(in_use));
    Some(room(Bytes(limit), available, &folder.join("memory.pressure")))
}

/// Bytes that a group is charged with and could do without: copies of files, as `MemAvailable` counts them for the
/// machine.
fn reclaimable(stat: &str) -> u64 {
    const KINDS: [&str; 3] = ["inactive_file", "active_file", "slab_reclaimable"];
    let of_line = |line: &str| -> Option<u64> {
        let (name, value) = line.split_once(' ')?;
        KINDS.contains(&name).then(|| value.trim().parse().ok()).flatten()
    };
    stat.lines().filter_map(of_line).fold(0, u64::saturating_add)
}

/// The folders of the control groups (v2) that a process is in, its own first, out of its `mountinfo` and its
/// `cgroup`. Empty where there are none.
fn group_folders(mountinfo: &str, cgroup: &str) -> Vec<PathBuf> {
    let Some(group) = cgroup.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let Some((mounted, place)) = mountinfo.lines().find_map(cgroup_mount) else {
        return Vec::new();
    };
    // A container may see only a part of the tree, and its groups by their names from the whole.
    let group = Path::new(group);
    let inside = group.strip_prefix(&mounted).or_else(|_| group.strip_prefix("/"));
    let inside = inside.unwrap_or(Path::new(""));
    if inside
        .components()
        .any(|component| component == Component::ParentDir)
    {
        // A group outside of what can be seen.
        return Vec::new();
    }
    let parts = inside.ancestors().filter(|part| !part.as_os_str().is_empty());
    parts
        .map(|part| place.join(part))
        .chain([place.clone()])
        .collect()
}

/// Which part of the tree of control groups a line of `mountinfo` mounts, and where.
fn cgroup_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((unescaped(fields.next()?), unescaped(fields.next()?)))
}

/// A path as `mountinfo` writes it: spaces and the like as `\040`.
fn unescaped(field: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let text = escapes.iter().fold(field.to_owned(), |text, (code, character)| {
        text.replace(code, character)
    });
    PathBuf::from(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A made-up machine: files under a folder of their own.
    pub(in crate::pressure) struct Machine(TempDir);

    impl Machine {
        pub(in crate::pressure) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(in crate::pressure) fn system(&self) -> System {
            System::below(self.0.path())
        }

        pub(in crate::pressure) fn meminfo(&self, total: u64, available: u64) {
            let (total, available) = (total >> 10, available >> 10);
            let text = format!("MemTotal: {total} kB\nMemFree: 17 kB\nMemAvailable: {available} kB\n");
            self.write("proc/meminfo", &text);
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Whole at once, for someone may be reading.
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, path).unwrap();
        }

        fn group(&self, folder: &str, maximum: &str, high: &str, current: u64, cached: u64) {
            self.write(&format!("{folder}/memory.max"), &format!("{maximum}\n"));
            self.write(&format!("{folder}/memory.high"), &format!("{high}\n"));
            self.write(&format!("{folder}/memory.current"), &format!("{current}\n"));
            let stat = format!(
                "anon 4096\nfile 9\ninactive_file {cached}\nactive_file 100\nslab_reclaimable 10\nslab 99\n"
            );
            self.write(&format!("{folder}/memory.stat"), &stat);
        }
    }

    const MOUNTS: &str = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_groups_of_a_process_are_found() {
        let found = |mounts: &str, cgroup: &str| -> Vec<String> {
            let folders = group_folders(mounts, cgroup).into_iter();
            folders.map(|folder| folder.display().to_string()).collect()
        };
        let own = "0::/user.slice/session 2.scope\n";
        let root = "/sys/fs/cgroup";
        let slice = "/sys/fs/cgroup/user.slice";
        assert_eq!(
            found(MOUNTS, own),
            [&format!("{slice}/session 2.scope"), slice, root]
        );
        assert_eq!(found(MOUNTS, "9:name=systemd:/x\n0::/\n"), [root]);
        // A container that sees its own part of the tree only, under a place with a space in its name.
        let part = "41 31 0:38 /docker/ab /my\\040groups ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(part, "0::/docker/ab/run\n"),
            ["/my groups/run", "/my groups"]
        );
        assert_eq!(found(MOUNTS, "0::/../../elsewhere\n"), [""; 0]);
        assert_eq!(found(MOUNTS, "4:memory:/a\n"), [""; 0]);
        assert_eq!(found("", own), [""; 0]);
    }

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
