//! Scratch memory of kernels, which each thread keeps for the next kernel.

use std::cell::RefCell;

/// Floats that a thread keeps; larger buffers are freed after use. 8 MB.
const KEPT: usize = 1 << 21;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Frees the scratch of this thread and of rayon's threads.
pub fn release_scratch() {
    // Buffers in use are not in their cells.
    let release = || drop(SCRATCH.with(RefCell::take));
    release();
    rayon::broadcast(|_| release());
}

/// Calls `use_it` with a buffer of `length` floats with arbitrary contents.
pub(crate) fn with_scratch<R>(length: usize, use_it: impl FnOnce(&mut [f32]) -> R) -> R {
    // Moved out of its cell: rayon may run another kernel on this thread inside `use_it`, which then
    // allocates its own buffer.
    let mut scratch = SCRATCH.with(RefCell::take);
    if scratch.len() < length {
        // Replaced, so that the old contents are not copied.
        scratch = Vec::new();
        scratch.resize(length, 0.0);
    }
    let result = use_it(&mut scratch[..length]);
    if scratch.len() <= KEPT {
        SCRATCH.with(|cell| cell.replace(scratch));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_released() {
        let kept = || SCRATCH.with_borrow(Vec::capacity);
        let keep = || {
            with_scratch(1000, |scratch| scratch.fill(1.0));
            kept()
        };
        // In a pool of its own: others compute in the one that all share.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| {
            assert!(rayon::broadcast(|_| keep()).iter().all(|&length| length >= 1000));
            release_scratch();
            assert_eq!(rayon::broadcast(|_| kept()), [0; 3]);
            with_scratch(KEPT + 1, |_| {});
            assert_eq!(kept(), 0, "what is too large to be kept");
        });
    }
}
