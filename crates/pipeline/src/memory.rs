//! The memory of a run: monitoring and cleanup. docs/memory.md shows how to use it.

pub use sd_memory::{MemoryInfo, Monitor, Pressure, Reading, Sample, Stage, Timeline, Watcher};
pub use sd_weights::{CountingAllocator, keep_heap_small};

use sd_memory::{Allowance, Bytes, Counters, ProcessMemory};
use sd_weights::LIBRARY_BYTES;

use crate::event::{Event, Observer};

/// The program itself: code, runtime, terminal, small allocations, and the libraries that are loaded with it. The code of a
/// build for development, of which little is optimised, is a third larger.
pub(crate) const PROGRAM: u64 = (if cfg!(debug_assertions) {
    52 << 20
} else {
    46 << 20
}) + LIBRARY_BYTES;

/// A monitor for a run that starts now. Allocations are counted if the binary uses [`CountingAllocator`].
pub fn monitor() -> Monitor {
    Monitor::start(Counters {
        process: process_memory,
        allocated: sd_weights::allocated_bytes,
        take_allocated_peak: sd_weights::take_allocated_peak,
        weights_read: sd_weights::bytes_read,
    })
}

/// The examples of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/memory.md")]
mod guide {}

/// Reads the memory of the machine and of this process; all zero on an unsupported system.
pub fn memory_info() -> MemoryInfo {
    sd_memory::memory_info().with_process(process_memory())
}

/// The memory that this process may use: the tightest of all limits.
pub(crate) fn allowance() -> Allowance {
    sd_memory::allowance(process_memory())
}

/// What the system counts against this process, where that is not its resident size.
fn process_memory() -> Option<ProcessMemory> {
    let memory = sd_weights::process_memory()?;
    Some(ProcessMemory {
        now: Bytes(memory.now),
        peak: Bytes(memory.peak),
    })
}

/// Returns free memory of the allocator to the system. `aggressive` also frees caches that would be used
/// again soon, such as the buffers that threads keep between kernels.
pub fn cleanup_memory(aggressive: bool) {
    if aggressive {
        sd_ops::release_scratch();
    }
    sd_weights::release_free_memory(aggressive);
}

/// Reads the memory, stores the reading in `monitor` under `label`, and notifies `observer`.
pub fn log_memory_status(label: &str, monitor: &Monitor, observer: &mut dyn Observer) {
    observer.observe(&Event::Memory(&monitor.read(label)));
}

/// Calls [`cleanup_memory`], then [`log_memory_status`] with the bytes that were freed.
pub fn log_cleanup(label: &str, aggressive: bool, monitor: &Monitor, observer: &mut dyn Observer) {
    observer.observe(&Event::Memory(
        &monitor.clean(label, || cleanup_memory(aggressive)),
    ));
}
