//! Who computes: rayon's threads and no others.

use rayon::prelude::*;

/// Has candle compute on the thread that asks it, where it would otherwise start threads of its own, as many as the machine has
/// processors, that go on asking for work between two operations and so take the processors from rayon's. What is
/// large is computed by the kernels of this crate. To be called first of all in a program: with other threads about it does
/// nothing.
pub fn leave_threads_to_rayon() {
    if is_alone() {
        // SAFETY: there is no other thread that could read the environment meanwhile.
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
}

/// Does `work` with each of `parts` at the same time, on the threads that compute. So none of its kernels has to wake one
/// first, nor to have this thread woken at its end. A thread that is at it computes nothing else meanwhile: `work` should wait
/// for nothing but kernels.
pub fn parallel_map<T: Send, R: Send>(parts: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    on_a_thread(|| parts.into_par_iter().with_max_len(1).map(work).collect())
}

/// Does so many tasks, which may take scratch, on the threads that compute.
pub(crate) fn for_each_task(count: usize, task: impl Fn(usize) + Send + Sync) {
    on_a_thread(|| (0..count).into_par_iter().for_each(task));
}

/// Does `work` on one of the threads that compute. Rayon leaves a single task to the thread that asks, which would be one thread more
/// that keeps scratch.
pub(crate) fn on_a_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => rayon::scope(|_| work()),
    }
}

/// Whether this is the only thread.
#[cfg(target_os = "linux")]
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Elsewhere the system itself guards the environment.
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
            let done = parallel_map((0..count).collect(), |part| (part, rayon::current_thread_index()));
            assert_eq!(done.len(), count);
            for (index, (part, thread)) in done.into_iter().enumerate() {
                assert_eq!(part, index);
                assert!(thread.is_some());
            }
        }
    }
}
