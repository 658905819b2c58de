//! The control groups (cgroups) of a process on Linux, and the memory that they leave.
//!
//! The formats are documented by the kernel in `admin-guide/cgroup-v2.rst`,
//! `admin-guide/cgroup-v1/memory.rst`, and `filesystems/proc.rst` for the mount points.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::MemoryDomain;
use super::stall::with_stalls;
use crate::Bytes;

/// Limits from this on mean no limit: version 1 writes the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// The directory of its files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The group's limit and what is left of it; none if it has no limit. `root` is `/`, except in tests. The
    /// kernel throttles a group above `memory.high`, so it counts as a limit like `memory.max`.
    pub(super) fn domain(&self, root: &Path) -> Option<MemoryDomain> {
        let folder = root.join(self.folder.strip_prefix("/").ok()?);
        let (limits, current): (&[&str], _) = match self.version {
            Version::One => (&["memory.limit_in_bytes"], "memory.usage_in_bytes"),
            Version::Two => (&["memory.max", "memory.high"], "memory.current"),
        };
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse().ok()
        };
        // `max` does not parse: no limit.
        let limits = limits.iter().filter_map(|name| number(name));
        let limit = limits.filter(|&limit| limit < NO_LIMIT).min()?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let in_use = number(current)?.saturating_sub(self.version.reclaimable(&stat));
        let available = Bytes(limit.saturating_sub(in_use));
        Some(with_stalls(
            Bytes(limit),
            available,
            &folder.join("memory.pressure"),
        ))
    }
}

impl Version {
    /// Bytes charged to a group that the kernel can reclaim: page cache, as `MemAvailable` counts it for the
    /// machine. Groups below it are included.
    fn reclaimable(self, stat: &str) -> u64 {
        let kinds: &[&str] = match self {
            Self::One => &["total_inactive_file", "total_active_file"],
            Self::Two => &["inactive_file", "active_file", "slab_reclaimable"],
        };
        let of_line = |line: &str| -> Option<u64> {
            let (name, value) = line.split_once(' ')?;
            kinds.contains(&name).then(|| value.trim().parse().ok()).flatten()
        };
        stat.lines().filter_map(of_line).fold(0, u64::saturating_add)
    }
}

/// The control groups that may limit a process's memory, its own first and the root last, from its
/// `mountinfo` and `cgroup` files. A machine may mount both versions, of which one controls memory. Empty if
/// there are none.
pub(super) fn groups(mountinfo: &str, cgroup: &str) -> Vec<Group> {
    let of_version = |version: Version| {
        let group = cgroup.lines().find_map(|line| group_of(line, version));
        let mount = mountinfo.lines().find_map(|line| mount_of(line, version));
        let folders = match (group, mount) {
            (Some(group), Some((mounted, mount_point))) => folders(Path::new(group), &mounted, &mount_point),
            _ => Vec::new(),
        };
        folders.into_iter().map(move |folder| Group { folder, version })
    };
    of_version(Version::Two).chain(of_version(Version::One)).collect()
}

/// The directories of `group` and its ancestors, if the part `mounted` of the hierarchy is mounted at
/// `mount_point`.
fn folders(group: &Path, mounted: &Path, mount_point: &Path) -> Vec<PathBuf> {
    // A container may see only a part of the hierarchy, and its groups by their full names.
    let inside = group.strip_prefix(mounted).or_else(|_| group.strip_prefix("/"));
    let inside = inside.unwrap_or(Path::new(""));
    if inside
        .components()
        .any(|component| component == Component::ParentDir)
    {
        // The group is outside of the visible hierarchy.
        return Vec::new();
    }
    let parts = inside.ancestors().filter(|part| !part.as_os_str().is_empty());
    parts
        .map(|part| mount_point.join(part))
        .chain([mount_point.to_owned()])
        .collect()
}

/// The group in a line of `cgroup`: `0::/user.slice`, or in version 1 `4:memory:/user.slice`.
fn group_of(line: &str, version: Version) -> Option<&str> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    let is_it = match version {
        Version::One => controllers.split(',').any(|controller| controller == "memory"),
        Version::Two => hierarchy == "0" && controllers.is_empty(),
    };
    is_it.then_some(group)
}

/// The part of the hierarchy that a line of `mountinfo` mounts, and its mount point.
fn mount_of(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    let is_it = match version {
        Version::One => name == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => name == "cgroup2",
    };
    let mut fields = mount.split(' ').skip(3);
    let found = (unescaped(fields.next()?), unescaped(fields.next()?));
    is_it.then_some(found)
}

/// Unescapes a path of `mountinfo`, which writes spaces and the like in octal: `\040`.
fn unescaped(field: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let text = escapes.iter().fold(field.to_owned(), |text, (code, character)| {
        text.replace(code, character)
    });
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::linux::tests::{MOUNTS, Machine};

    #[test]
    fn the_groups_of_a_process_are_found() {
        let found = |mounts: &str, cgroup: &str| -> Vec<String> {
            let groups = groups(mounts, cgroup).into_iter();
            groups.map(|group| group.folder.display().to_string()).collect()
        };
        let own = "0::/user.slice/session 2.scope\n";
        let root = "/sys/fs/cgroup";
        let slice = "/sys/fs/cgroup/user.slice";
        assert_eq!(
            found(MOUNTS, own),
            [&format!("{slice}/session 2.scope"), slice, root]
        );
        assert_eq!(found(MOUNTS, "9:name=systemd:/x\n0::/\n"), [root]);
        // A container that sees its own part of the tree only, under a mount point with a space in its name.
        let part = "41 31 0:38 /docker/ab /my\\040groups ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(part, "0::/docker/ab/run\n"),
            ["/my groups/run", "/my groups"]
        );
        assert_eq!(found(MOUNTS, "0::/../../elsewhere\n"), [""; 0]);
        assert_eq!(found("", own), [""; 0]);
    }

    #[test]
    fn groups_of_version_1_are_found_too() {
        let found = |mounts: &str, cgroup: &str| -> Vec<String> {
            let groups = groups(mounts, cgroup).into_iter();
            groups.map(|group| group.folder.display().to_string()).collect()
        };
        let memory = "/sys/fs/cgroup/memory";
        let own = "11:cpu,cpuacct:/c\n4:memory:/a/b\n1:name=systemd:/s\n0::/u\n";
        assert_eq!(
            found(MOUNTS, own),
            [
                "/sys/fs/cgroup/u",
                "/sys/fs/cgroup",
                &format!("{memory}/a/b"),
                &format!("{memory}/a"),
                memory
            ]
        );
        // A container's own part, and controllers that are mounted together.
        let part = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory,hugetlb\n\
            36 31 0:33 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        assert_eq!(found(part, "4:hugetlb,memory:/docker/ab\n"), [memory]);
        assert_eq!(found(part, "4:cpu:/docker/ab\n"), [""; 0]);
    }

    #[test]
    fn a_limit_of_version_1_is_one() {
        let machine = Machine::new();
        let folder = "sys/fs/cgroup/memory/job";
        let group = Group {
            folder: Path::new("/").join(folder),
            version: Version::One,
        };
        let limited = |limit: &str| {
            machine.write(&format!("{folder}/memory.limit_in_bytes"), limit);
            let domain = group.domain(machine.root());
            domain.map(|domain| (domain.total.0, domain.available.0))
        };
        assert_eq!(limited("1073741824\n"), None, "nobody says what is in use");
        machine.write(&format!("{folder}/memory.usage_in_bytes"), "629145600\n");
        machine.write(
            &format!("{folder}/memory.stat"),
            "cache 5\ninactive_file 7\ntotal_inactive_file 104857600\ntotal_active_file 104857600\n",
        );
        assert_eq!(limited("1073741824\n"), Some((1 << 30, (1 << 30) - (400 << 20))));
        assert_eq!(limited("9223372036854771712\n"), None, "no limit");
        assert_eq!(limited("many\n"), None);
    }
}
