//! Macs: the figures that macOS gives of its memory, and how much of it a program may plan with.
//!
//! macOS keeps few pages free: it compresses the memory of idle programs when others need room. Counting free
//! pages alone would say that nothing is left on a Mac in use, counting all pages that can be freed that
//! everything is. [`MacMemory::allowance`] is between the two. All but the reading of the figures are pure
//! functions of them, so that tests on any system can run them.

#[cfg(target_os = "macos")]
mod figures;
#[cfg(any(target_os = "macos", test))]
mod memory;

#[cfg(target_os = "macos")]
pub(crate) use memory::MacMemory;

use crate::{Bytes, Limit};

/// The limit of a GPU that shares the machine's memory: the `working_set` that is recommended for it, or the
/// limit that the user set on memory that GPUs may wire, if that is not more.
pub fn shared_gpu_limit(working_set: Bytes, wired_limit: Option<Bytes>) -> Limit {
    match wired_limit {
        Some(limit) if limit <= working_set => Limit::WiredByGpu { limit },
        _ => Limit::WorkingSet { limit: working_set },
    }
}

/// The limit that the user set on memory that GPUs may wire (macOS, `iogpu.wired_limit_mb`).
pub fn gpu_wired_limit() -> Option<Bytes> {
    #[cfg(target_os = "macos")]
    return figures::wired_limit();
    #[cfg(not(target_os = "macos"))]
    return None;
}
