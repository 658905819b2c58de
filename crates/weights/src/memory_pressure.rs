//! Requests for memory that reach networks during a forward pass.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests that networks free resident blocks during a forward pass. A freed block is streamed from then on.
/// Clones share their state.
#[derive(Clone, Default)]
pub struct MemoryPressure(Arc<PressureState>);

#[derive(Default)]
struct PressureState {
    requested: AtomicU64,
    released: AtomicU64,
    /// Reports how many bytes the machine is short of.
    shortfall: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl MemoryPressure {
    /// Polls `shortfall`, the bytes that the machine is short of, between every two blocks.
    pub fn watching(shortfall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(PressureState {
            shortfall: Some(Box::new(shortfall)),
            ..PressureState::default()
        }))
    }

    /// Requests that `bytes` be freed. They are freed between two blocks.
    pub fn request(&self, bytes: u64) {
        self.0.requested.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes that were freed since the last call.
    pub fn take_released(&self) -> u64 {
        self.0.released.swap(0, Ordering::Relaxed)
    }

    /// Bytes that are to be freed: those requested or those that the machine is short of, whichever is more.
    /// The caller takes over the request.
    pub(crate) fn take_requested(&self) -> u64 {
        let requested = match self.0.requested.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.requested.swap(0, Ordering::Relaxed),
        };
        let shortfall = self.0.shortfall.as_ref().map_or(0, |shortfall| shortfall());
        requested.max(shortfall)
    }

    /// Counts `bytes` as freed.
    pub(crate) fn add_released(&self, bytes: u64) {
        self.0.released.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryPressure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryPressure")
            .field("requested", &self.0.requested)
            .field("released", &self.0.released)
            .finish_non_exhaustive()
    }
}
