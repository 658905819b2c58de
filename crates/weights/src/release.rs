//! Giving free memory back to the system.

/// Asks the allocator to give pages that nothing uses back to the system, which it otherwise keeps for
/// later. Other systems than Linux with glibc do so by themselves. `aggressive` keeps no reserve.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn release_free_memory(aggressive: bool) {
    /// What a gentle release leaves with the allocator: about what the next stage begins with.
    const RESERVE: usize = 16 << 20;
    // SAFETY: malloc_trim takes a number and touches nothing but the allocator's own free lists, under the
    // allocator's own locks.
    unsafe {
        libc::malloc_trim(if aggressive { 0 } else { RESERVE });
    }
}

/// Asks the allocator to give pages that nothing uses back to the system. This system does so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release_free_memory(_aggressive: bool) {}
