//! The limit on host memory that caches streamed blocks of a GPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Host memory that caches streamed blocks of a device with memory of its own, so that blocks are read from
/// disk once and then only copied over the bus. It is not used where the device computes in host memory.
/// Clones share the limit.
#[doc(alias = "offload")]
#[derive(Debug, Clone, Default)]
pub struct HostMemory(Arc<Share>);

#[derive(Debug, Default)]
struct Share {
    limit: u64,
    taken: AtomicU64,
}

impl HostMemory {
    /// A cache of at most `limit` bytes. Blocks that do not fit are read from disk in every pass.
    pub fn up_to(limit: u64) -> Self {
        Self(Arc::new(Share {
            limit,
            taken: AtomicU64::new(0),
        }))
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The bytes in use.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` if the limit allows it.
    #[allow(dead_code, reason = "only the streaming to a GPU takes it")]
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|&taken| taken <= self.0.limit);
        let taken = &self.0.taken;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Releases `bytes` that were reserved.
    #[allow(dead_code, reason = "only the streaming to a GPU takes it")]
    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let memory = HostMemory::up_to(100);
        let same = memory.clone();
        assert!(memory.take(60) && !same.take(41) && same.take(40));
        assert_eq!((memory.taken(), memory.limit()), (100, 100));
        memory.give_back(60);
        assert!(same.take(60) && !same.take(u64::MAX));
        assert!(!HostMemory::default().take(1));
    }
}
