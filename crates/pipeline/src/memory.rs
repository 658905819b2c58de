//! The memory of a run: watching it, and giving back what is no longer used.

pub use sd_memory::{MemoryInfo, Monitor, Pressure, Reading, Sample, Stage, Timeline, Watcher, memory_info};
pub use sd_weights::{CountingAllocator, keep_heap_small};

use sd_memory::Counters;

use crate::event::{Event, Observer};

/// A monitor of a run that begins now. Allocations are counted where the binary has made [`CountingAllocator`] its own.
pub fn monitor() -> Monitor {
    Monitor::start(Counters {
        allocated: sd_weights::allocated_bytes,
        take_allocated_peak: sd_weights::take_allocated_peak,
        weights_read: sd_weights::bytes_read,
    })
}

/// Gives memory that nothing uses any more back to the system, where the allocator would keep it for later.
/// `aggressive` also gives back what would be wanted again soon, the buffers that threads keep between kernels among it.
pub fn cleanup_memory(aggressive: bool) {
    if aggressive {
        sd_ops::release_scratch();
    }
    sd_weights::release_free_memory(aggressive);
}

/// Reads the memory, keeps the reading in `monitor` under `label`, and tells `observer`.
pub fn log_memory_status(label: &str, monitor: &Monitor, observer: &mut dyn Observer) {
    observer.observe(&Event::Memory(&monitor.read(label)));
}

/// [`cleanup_memory`], and then [`log_memory_status`] with what it gave back.
pub fn log_cleanup(label: &str, aggressive: bool, monitor: &Monitor, observer: &mut dyn Observer) {
    observer.observe(&Event::Memory(
        &monitor.clean(label, || cleanup_memory(aggressive)),
    ));
}
