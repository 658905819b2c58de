//! The flag `--threads`.

use std::num::NonZeroUsize;

/// The largest thread count.
const MOST_THREADS: usize = 4096;

/// Parses a thread count.
pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= MOST_THREADS => Ok(threads),
        _ => Err(format!("a number of threads is from 1 to {MOST_THREADS}")),
    }
}
