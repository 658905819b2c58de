//! The clock of measurements: the time that passes, or the CPU time of this process.

use std::time::{Duration, Instant};

/// Where a measurement began.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    Wall(Instant),
    /// CPU time of all threads until then.
    Cpu(Duration),
}

impl Clock {
    /// The CPU time if `SD_BENCH_CPU_TIME` is set.
    pub(crate) fn start() -> Self {
        match std::env::var_os("SD_BENCH_CPU_TIME") {
            Some(_) => Self::Cpu(cpu_time()),
            None => Self::Wall(Instant::now()),
        }
    }

    /// The time since the start. CPU time is shared out among the threads, so that both are equal while all threads
    /// compute.
    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Self::Wall(start) => start.elapsed(),
            Self::Cpu(start) => {
                let threads = rayon::current_num_threads() as u32;
                // At least a nanosecond: criterion divides by it.
                (cpu_time().saturating_sub(start) / threads).max(Duration::from_nanos(1))
            }
        }
    }
}

/// The time that Linux has run the threads of this process, zero elsewhere. See `Documentation/scheduler/sched-stats.rst`
/// of Linux.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let nanoseconds = threads.flatten().map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        first.parse().unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}
