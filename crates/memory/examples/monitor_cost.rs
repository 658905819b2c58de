//! Measures the CPU time of a monitor's thread, as the kernel accounts it:
//! `cargo run --release -p sd-memory --example monitor_cost`.

#![allow(clippy::print_stdout)] // Its figures go to whoever runs it.

use std::time::{Duration, Instant};
use std::{fs, io, thread};

use sd_memory::{Counters, Monitor, Watcher};

fn main() -> io::Result<()> {
    const WATCHED: Duration = Duration::from_secs(10);
    let monitor = Monitor::start(Counters::NONE);
    thread::sleep(WATCHED);
    let looks = monitor.timeline().samples.len();
    let busy = busy("memory-monitor")?;
    let share = 100.0 * busy.as_secs_f64() / WATCHED.as_secs_f64();
    println!("monitor: {looks} looks in {WATCHED:?} took {busy:.2?}: {share:.3}% of one CPU");

    const ASKED: u32 = 1_000_000;
    let watcher = Watcher::start();
    let start = Instant::now();
    for _ in 0..ASKED {
        std::hint::black_box(watcher.pressure());
    }
    println!(
        "watcher: {:.1?} per call without a pause",
        start.elapsed() / ASKED
    );
    Ok(())
}

/// The CPU time of the thread called `name`.
fn busy(name: &str) -> io::Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let folder = task?.path();
        // The kernel keeps the first 15 bytes of a thread's name.
        let found = fs::read_to_string(folder.join("comm"))?;
        if name.starts_with(found.trim_end()) && !found.trim_end().is_empty() {
            let times = fs::read_to_string(folder.join("schedstat"))?;
            let nanoseconds = times.split(' ').next().and_then(|number| number.parse().ok());
            return Ok(Duration::from_nanos(nanoseconds.unwrap_or_default()));
        }
    }
    Err(io::Error::other("there is no such thread"))
}
