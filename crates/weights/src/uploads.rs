//! Counts the bytes of weights that devices were given.

use std::sync::atomic::{AtomicU64, Ordering};

static BYTES_UPLOADED: AtomicU64 = AtomicU64::new(0);

/// The bytes of weights that this process has so far copied to NVIDIA GPUs by streaming, or read into buffers
/// of Apple GPUs.
pub fn bytes_uploaded() -> u64 {
    BYTES_UPLOADED.load(Ordering::Relaxed)
}

/// Counts `bytes` that a device was given.
#[cfg(any(feature = "cuda", metal))]
pub(crate) fn count_uploaded(bytes: u64) {
    BYTES_UPLOADED.fetch_add(bytes, Ordering::Relaxed);
}
