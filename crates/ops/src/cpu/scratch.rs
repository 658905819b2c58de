//! Memory that kernels need for a while, kept by each thread for the next one.

use std::cell::RefCell;

/// Floats that a thread keeps; what is larger is given back after its use. 8 MB.
const KEPT: usize = 1 << 21;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Frees what this thread and those of rayon's pool keep for the next kernel.
pub fn release_scratch() {
    // Nobody is in the middle of using one: a buffer is out of its cell for that while.
    let release = || drop(SCRATCH.with(RefCell::take));
    release();
    rayon::broadcast(|_| release());
}

/// Gives `use_it` a buffer of `length` floats whose contents are whatever was left there.
pub(crate) fn with_scratch<R>(length: usize, use_it: impl FnOnce(&mut [f32]) -> R) -> R {
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
