//! All computation runs on rayon's threads.

use candle_core::Device;
use rayon::prelude::*;

use crate::capabilities::Capabilities;

/// Makes candle compute on the calling thread. Otherwise it starts a thread pool of its own, whose threads
/// spin between operations and take CPU time from rayon's. Large operations run in the kernels of this crate.
/// Call it first in a program: once other threads exist it does nothing.
pub fn leave_threads_to_rayon() {
    if is_alone() {
        // SAFETY: there is no other thread that could read the environment meanwhile.
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
}

/// Maps `work`, which computes on `device`, over `parts`: in parallel on rayon's threads where operations run
/// there, else one after the other. Kernels inside `work` then neither wake a thread nor wait for one at the
/// end. A thread runs nothing else meanwhile: `work` should wait only for kernels.
pub fn parallel_map<T: Send, R: Send>(
    device: &Device,
    parts: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync,
) -> Vec<R> {
    if Capabilities::of(device).computes_on_threads {
        on_a_thread(|| parts.into_par_iter().with_max_len(1).map(work).collect())
    } else {
        parts.into_iter().map(work).collect()
    }
}

/// Runs `count` tasks, which may use scratch, on rayon's threads.
pub(crate) fn for_each_task(count: usize, task: impl Fn(usize) + Send + Sync) {
    on_a_thread(|| (0..count).into_par_iter().for_each(task));
}

/// Runs `work` on one of rayon's threads. Rayon runs a single task on the calling thread, which would be one
/// more thread that keeps scratch.
pub(crate) fn on_a_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => rayon::scope(|_| work()),
    }
}

/// Whether the process has only this thread.
#[cfg(target_os = "linux")]
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Other systems guard the environment themselves.
#[cfg(not(target_os = "linux"))]
fn is_alone() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_done_on_the_threads_that_compute_and_stay_in_order() {
        for count in [0, 1, 100] {
            let done = parallel_map(&Device::Cpu, (0..count).collect(), |part| {
                (part, rayon::current_thread_index())
            });
            assert_eq!(done.len(), count);
            for (index, (part, thread)) in done.into_iter().enumerate() {
                assert_eq!(part, index);
                assert!(thread.is_some());
            }
        }
    }
}
