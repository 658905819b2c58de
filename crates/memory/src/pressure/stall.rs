//! The kernel's pressure stall information (PSI), beside a limit on memory.

use std::fs;
use std::path::Path;

use super::MemoryDomain;
use crate::Bytes;
use crate::probe::proc;

/// A limit of `total`, of which `available` bytes are left. `pressure` is the file with the stall
/// information.
pub(super) fn with_stalls(total: Bytes, available: Bytes, pressure: &Path) -> MemoryDomain {
    // A kernel may be built or booted without it.
    let stalls = proc::stalls(&fs::read_to_string(pressure).unwrap_or_default());
    MemoryDomain {
        total,
        available: available.min(total),
        some_stalled: stalls.some,
        all_stalled: stalls.full,
        said: None,
    }
}
