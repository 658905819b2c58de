//! Memory that kernels need for a while, kept by each thread for the next one.

use std::cell::RefCell;

/// Floats that a thread keeps; what is larger is given back after its use. 8 MB.
const KEPT: usize = 1 << 21;

/// Gives `use_it` a buffer of `length` floats whose contents are whatever was left there.
pub(crate) fn with_scratch<R>(length: usize, use_it: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out of its cell for the while: rayon may run another kernel on this thread inside of `use_it`,
    // which then makes a buffer of its own.
    let mut scratch = SCRATCH.with(RefCell::take);
    if scratch.len() < length {
        // Nothing of the old contents needs to be copied.
        scratch = Vec::new();
        scratch.resize(length, 0.0);
    }
    let result = use_it(&mut scratch[..length]);
    if scratch.len() <= KEPT {
        SCRATCH.with(|cell| cell.replace(scratch));
    }
    result
}
