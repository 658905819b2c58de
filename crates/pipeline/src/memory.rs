//! The memory of a run: readings at its points, and giving back what is no longer used.

use sd_memory::Timeline;
pub use sd_memory::{MemoryInfo, Reading, memory_info};
pub use sd_weights::{CountingAllocator, return_large_pieces_at_once};

use crate::event::{Event, Observer};

/// Gives memory that nothing uses any more back to the system, where the allocator would keep it for later.
/// `aggressive` also gives back what would be wanted again soon.
pub fn cleanup_memory(aggressive: bool) {
    sd_weights::release_free_memory(aggressive);
}

/// Reads the memory, keeps the reading in `timeline` under `label`, and tells `observer`.
pub fn log_memory_status(label: &str, timeline: &mut Timeline, observer: &mut dyn Observer) {
    observer.observe(&Event::Memory(timeline.read(label)));
}
