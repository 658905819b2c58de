//! Points at which a test ends the process: between two changes of the disk, and after each step.

/// Ends the process at once, as a crash of the machine would, if this is the point that `SD_TEST_CRASH_AT` counts to. Builds
/// without debug assertions have no such points.
#[cfg(debug_assertions)]
pub(crate) fn crash_point() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: LazyLock<Option<u64>> = LazyLock::new(|| {
        let at = std::env::var("SD_TEST_CRASH_AT").ok()?;
        at.parse().ok()
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if let Some(at) = *AT
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == at
    {
        std::process::abort();
    }
}

/// Nothing: only builds with debug assertions have such points.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn crash_point() {}
