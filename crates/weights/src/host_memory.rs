//! Host memory beside a device that has memory of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Host memory in which streamed blocks are kept beside a device that has memory of its own, so that they are read
/// from disk once and reach the device over its link alone. Where the device computes in host memory it is never
/// used. Its clones are one.
#[derive(Debug, Clone, Default)]
pub struct HostMemory(Arc<Share>);

#[derive(Debug, Default)]
struct Share {
    limit: u64,
    taken: AtomicU64,
}

impl HostMemory {
    /// At most `limit` bytes. What does not fit is read from disk for every pass.
    pub fn up_to(limit: u64) -> Self {
        Self(Arc::new(Share {
            limit,
            taken: AtomicU64::new(0),
        }))
    }

    /// The most bytes that may be taken.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, unless there are not so many left.
    #[cfg_attr(
        not(any(feature = "cuda", test)),
        expect(dead_code, reason = "only a GPU has other memory")
    )]
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|&taken| taken <= self.0.limit);
        let taken = &self.0.taken;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Gives `bytes` back that were taken.
    #[cfg_attr(
        not(any(feature = "cuda", test)),
        expect(dead_code, reason = "only a GPU has other memory")
    )]
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
