//! Linux: the limits of control groups and the resource limits of the process.
//!
//! `/proc/self/limits` and the fields of `/proc/self/status` are those of proc(5) and getrlimit(2).

use std::fs;
use std::path::Path;

use crate::Bytes;
use crate::limit::{Allowance, Limit};
use crate::pressure::{MemoryDomain, linux::System};
use crate::probe::proc;

/// The tightest limit of the process, on the machine whose files are below `root`. None if the machine's
/// memory cannot be read; other limits that cannot be read are skipped.
pub(super) fn tightest(root: &Path) -> Option<Allowance> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let system = System::below(root);
    let status = read("proc/self/status");
    let field = |name: &str| proc::field(&status, name).unwrap_or_default();
    let own = field("VmRSS");
    let machine = Allowance::available(system.machine()?.available, own);
    let groups = system.limited_groups().map(|(folder, domain)| Allowance {
        bytes: Bytes(domain.available.0.saturating_add(own.0)),
        margin: group_margin(&domain),
        limit: Limit::ControlGroup {
            path: folder.to_owned(),
            limit: domain.total,
        },
    });
    let limits = read("proc/self/limits");
    // Address space that is mapped but not resident counts towards these limits: stacks of threads, the
    // program's text.
    let of_process = |limit: Bytes, counted: Bytes, of: fn(Bytes) -> Limit| Allowance {
        bytes: limit.saturating_sub(counted.saturating_sub(own)),
        margin: process_margin(limit),
        limit: of(limit),
    };
    let addresses = limit(&limits, "Max address space")
        .map(|limit| of_process(limit, field("VmSize"), |limit| Limit::AddressSpace { limit }));
    let data = limit(&limits, "Max data size")
        .map(|limit| of_process(limit, field("VmData"), |limit| Limit::Data { limit }));
    groups
        .chain(addresses)
        .chain(data)
        .chain([machine])
        .min_by_key(Allowance::budget)
}

/// The margin of a group's limit: more than its threshold of memory pressure.
fn group_margin(domain: &MemoryDomain) -> Bytes {
    Bytes(domain.tight_below().0 / 4 * 5 + (8 << 20))
}

/// The margin of a resource limit: address space for the stacks of threads and for the allocator's mappings.
fn process_margin(limit: Bytes) -> Bytes {
    const LEAST: u64 = 96 << 20;
    Bytes(LEAST.max(limit.0 / 20))
}

/// The soft limit `name` of a `/proc/self/limits`; none if it is `unlimited`.
fn limit(limits: &str, name: &str) -> Option<Bytes> {
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let soft = values.split_ascii_whitespace().next()?;
    soft.parse().ok().map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::linux::tests::{MOUNTS, Machine};

    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;

    /// A machine of 32 GB of which 20 are available, and a process that has 100 MB of 400 MB of addresses.
    fn machine() -> Machine {
        let machine = Machine::new();
        machine.meminfo(32 * GB, 20 * GB);
        let status = "Name:\tgenerate\nVmSize:\t  409600 kB\nVmRSS:\t  102400 kB\nVmData:\t  204800 kB\n";
        machine.write("proc/self/status", status);
        machine.write("proc/self/mountinfo", MOUNTS);
        machine
    }

    fn found(machine: &Machine) -> (u64, Limit) {
        let tightest = tightest(machine.root()).unwrap();
        (tightest.bytes.0, tightest.limit)
    }

    fn limits(addresses: &str, data: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max address space         {addresses}            unlimited            bytes     \n"
        )
    }

    #[test]
    fn without_limits_the_machine_counts() {
        let machine = machine();
        assert_eq!(found(&machine), (20 * GB + 100 * MB, Limit::Available));
        machine.write("proc/self/limits", &limits("unlimited", "unlimited"));
        machine.write("proc/self/cgroup", "0::/job\n4:memory:/job\n");
        machine.group("sys/fs/cgroup/job", "max", "max", GB, 0);
        machine.write(
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        machine.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1073741824\n");
        assert_eq!(found(&machine), (20 * GB + 100 * MB, Limit::Available));
    }

    #[test]
    fn the_tightest_group_up_to_the_root_counts() {
        let machine = machine();
        machine.write("proc/self/cgroup", "0::/pod/container\n");
        machine.group("sys/fs/cgroup/pod/container", "8589934592", "max", 300 * MB, 0);
        machine.group("sys/fs/cgroup/pod", "4294967296", "1073741824", 300 * MB, 50 * MB);
        let pod = Limit::ControlGroup {
            path: "/sys/fs/cgroup/pod".into(),
            limit: Bytes(GB),
        };
        // 110 bytes more of the group's could go.
        assert_eq!(found(&machine), (GB - 250 * MB + 100 * MB + 110, pod));
        machine.group("sys/fs/cgroup", "536870912", "max", 300 * MB, 0);
        let root = Limit::ControlGroup {
            path: "/sys/fs/cgroup".into(),
            limit: Bytes(512 * MB),
        };
        assert_eq!(found(&machine), (512 * MB - 300 * MB + 100 * MB + 110, root));
    }

    #[test]
    fn a_container_of_version_1_counts() {
        let machine = machine();
        machine.write("proc/self/cgroup", "5:cpu:/docker/ab\n4:memory:/docker/ab\n");
        let folder = "sys/fs/cgroup/memory/docker";
        machine.write(&format!("{folder}/memory.limit_in_bytes"), "1073741824\n");
        machine.write(&format!("{folder}/memory.usage_in_bytes"), "209715200\n");
        let limit = Limit::ControlGroup {
            path: "/sys/fs/cgroup/memory/docker".into(),
            limit: Bytes(GB),
        };
        assert_eq!(found(&machine), (GB - 100 * MB, limit));
        // Of a gigabyte there is a good part left to plan with.
        let budget = tightest(machine.root()).unwrap().budget();
        assert!(budget.0 > 550 * MB && budget.0 < 750 * MB, "{budget}");
    }

    #[test]
    fn limits_of_the_process_count() {
        let machine = machine();
        machine.write("proc/self/limits", &limits("2147483648", "unlimited"));
        let limit = Limit::AddressSpace { limit: Bytes(2 * GB) };
        // 300 MB of addresses are of no use.
        assert_eq!(found(&machine), (2 * GB - 300 * MB, limit));
        machine.write("proc/self/limits", &limits("2147483648", "1073741824"));
        let limit = Limit::Data { limit: Bytes(GB) };
        assert_eq!(found(&machine), (GB - 100 * MB, limit));
    }

    #[test]
    fn what_cannot_be_read_is_no_limit_and_no_panic() {
        assert_eq!(tightest(Machine::new().root()), None);
        let machine = machine();
        for text in [
            "",
            "Max address space",
            "Max address space  many  unlimited bytes",
            "\u{0}\u{fffd}",
        ] {
            machine.write("proc/self/limits", text);
            machine.write("proc/self/cgroup", text);
            machine.write("proc/self/mountinfo", text);
            assert_eq!(found(&machine).1, Limit::Available, "{text:?}");
        }
        // A limit below what the process has already.
        machine.write("proc/self/status", "VmRSS: lots\n");
        machine.write("proc/self/limits", &limits("unlimited", "0"));
        assert_eq!(found(&machine), (0, Limit::Data { limit: Bytes(0) }));
        assert_eq!(tightest(machine.root()).unwrap().budget(), Bytes(0));
    }
}
