//! Monitors a run's memory: a thread samples it many times a second, the run reports its stages and takes
//! readings.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::history::History;
use crate::probe::{QuickProbe, process_peak};
use crate::series::Series;
use crate::{Bytes, DeviceInfo, ProcessMemory, Reading, Sample, Stage, Timeline, memory_info};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(25);
/// Samples that share one reading of the machine's available memory, which is the most expensive figure and
/// changes most slowly.
const LOOKS_A_MACHINE: u32 = 4;
/// Largest number of samples of a curve: more than a screen has columns.
const MOST_SAMPLES: usize = 2048;

/// The counters of the process that a monitor reads.
#[derive(Clone, Copy)]
pub struct Counters {
    /// The memory that the system counts against this process; `None` for its resident size.
    pub process: fn() -> Option<ProcessMemory>,
    /// Bytes that are allocated now.
    pub allocated: fn() -> u64,
    /// The peak of allocated bytes since the last call. A monitor calls it all the time, so nobody else may.
    pub take_allocated_peak: fn() -> u64,
    /// Bytes of weights that were read so far.
    pub weights_read: fn() -> u64,
}

impl Counters {
    /// No counters.
    pub const NONE: Self = Self {
        process: || None,
        allocated: || 0,
        take_allocated_peak: || 0,
        weights_read: || 0,
    };

    /// The kernel's high-water mark of this process's memory.
    fn process_peak(&self) -> Option<Bytes> {
        match (self.process)() {
            Some(process) => Some(process.peak),
            None => process_peak(),
        }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// Reads the memory of a device.
type DeviceProbe = Box<dyn Fn() -> Option<DeviceInfo> + Send>;

/// Monitors the memory of a run from its start until it is dropped.
///
/// A thread samples it 40 times a second, which takes less than half a percent of a CPU core (measured by
/// `examples/monitor_cost.rs`). The allocator's peak includes allocations between two samples. The resident
/// peak of a stage is the kernel's high-water mark if the stage raised it (Linux), otherwise the largest
/// sample.
#[derive(Debug)]
pub struct Monitor {
    watched: Arc<Watched>,
    /// `None` if the system could not start a thread: then only stages and readings sample.
    looker: Option<Looker>,
}

impl Monitor {
    /// A monitor of a run that starts now.
    pub fn start(counters: Counters) -> Self {
        // Resets a peak from before the run.
        (counters.take_allocated_peak)();
        let watched = Arc::new(Watched {
            start: Instant::now(),
            counters,
            weights_read_before: (counters.weights_read)(),
            process_peak_before: counters.process_peak(),
            state: Mutex::new(State {
                probe: QuickProbe::open(),
                available: Bytes(0),
                device: None,
                looks: 0,
                series: Series::new(MOST_SAMPLES),
                stages: History::default(),
                open: None,
                readings: History::default(),
                resident_peak: Bytes(0),
            }),
        });
        watched.look();
        let looker = Looker::start(watched.clone()).ok();
        Self { watched, looker }
    }

    /// Monitors the memory of a device too, which `probe` reads.
    pub fn watch_device(&self, probe: impl Fn() -> Option<DeviceInfo> + Send + 'static) {
        self.watched.state().device = Some(Box::new(probe));
    }

    /// Begins the stage `name` and ends the one before.
    pub fn stage(&self, name: &str) {
        let mut state = self.watched.state();
        self.watched.end_stage(&mut state);
        let last = self.watched.look_at(&mut state);
        state.open = Some(OpenStage {
            process_peak_before: self.watched.counters.process_peak(),
            weights_read_before: last.weights_read,
        });
        state.stages.push(Stage {
            name: name.to_owned(),
            start: last.seconds,
            end: last.seconds,
            allocated_peak: Bytes((self.watched.counters.allocated)()),
            resident_peak: last.resident,
            device_peak: last.device,
            weights_read: Bytes(0),
        });
    }

    /// Ends the current stage.
    pub fn end_stage(&self) {
        self.watched.end_stage(&mut self.watched.state());
    }

    /// Takes a reading now and keeps it under `label`.
    pub fn read(&self, label: &str) -> Reading {
        self.watched.read(label, None)
    }

    /// Calls `give_back` to return memory to the system, takes a reading with the bytes that were returned,
    /// and keeps it under `label`.
    pub fn clean(&self, label: &str, give_back: impl FnOnce()) -> Reading {
        let before = self.watched.look().resident;
        give_back();
        let after = self.watched.look().resident;
        self.watched.read(label, Some(before.saturating_sub(after)))
    }

    /// Marks the start of another group of images.
    pub fn begin_group(&self) {
        self.end_stage();
        let mut state = self.watched.state();
        state.readings.begin_group();
        state.stages.begin_group();
    }

    /// The whole record so far. The stages and readings in the middle of a long run are left out.
    pub fn timeline(&self) -> Timeline {
        self.timeline_with(History::all, History::all)
    }

    /// The record so far, with only those readings and stages that came before the first group of images or
    /// belong to the current one, in bounded number.
    pub fn timeline_of_group(&self) -> Timeline {
        self.timeline_with(History::of_group, History::of_group)
    }

    fn timeline_with(
        &self,
        readings: impl FnOnce(&History<Reading>) -> Vec<Reading>,
        stages: impl FnOnce(&History<Stage>) -> Vec<Stage>,
    ) -> Timeline {
        let mut state = self.watched.state();
        let last = self.watched.look_at(&mut state);
        state.ask_the_kernel(&self.watched.counters);
        Timeline {
            readings: readings(&state.readings),
            samples: state.series.samples().collect(),
            stages: stages(&state.stages),
            peak: self.watched.peak(&state),
            seconds: last.seconds,
        }
    }

    /// The resident peak so far: the kernel's high-water mark if the run raised it, otherwise the largest
    /// sample.
    pub fn peak(&self) -> Bytes {
        let mut state = self.watched.state();
        self.watched.look_at(&mut state);
        self.watched.peak(&state)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(looker) = self.looker.take() {
            looker.stop();
        }
    }
}

/// The run that is monitored.
#[derive(Debug)]
struct Watched {
    start: Instant,
    counters: Counters,
    weights_read_before: u64,
    process_peak_before: Option<Bytes>,
    state: Mutex<State>,
}

struct State {
    probe: QuickProbe,
    /// The machine's available memory at its last reading.
    available: Bytes,
    device: Option<DeviceProbe>,
    looks: u32,
    series: Series,
    stages: History<Stage>,
    /// The peaks of the current stage.
    open: Option<OpenStage>,
    readings: History<Reading>,
    resident_peak: Bytes,
}

impl State {
    fn device_info(&self) -> Option<DeviceInfo> {
        self.device.as_ref().and_then(|probe| probe())
    }

    /// Updates the current stage's peak with the kernel's high-water mark, if the stage raised it.
    fn ask_the_kernel(&mut self, counters: &Counters) {
        if let (Some(open), Some(stage)) = (&self.open, self.stages.last_mut()) {
            let raised = raised(open.process_peak_before, counters);
            stage.resident_peak = stage.resident_peak.max(raised.unwrap_or_default());
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("State");
        shown
            .field("stages", &self.stages)
            .field("readings", &self.readings);
        shown.finish_non_exhaustive()
    }
}

/// The figures at the start of a stage.
#[derive(Debug)]
struct OpenStage {
    process_peak_before: Option<Bytes>,
    weights_read_before: Bytes,
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves valid figures.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Sample {
        self.look_at(&mut self.state())
    }

    /// Takes a sample: for the curve and the peaks of the current stage.
    fn look_at(&self, state: &mut State) -> Sample {
        if state.looks.is_multiple_of(LOOKS_A_MACHINE) {
            state.available = state.probe.available();
        }
        state.looks = state.looks.wrapping_add(1);
        let weights_read = (self.counters.weights_read)();
        let look = Sample {
            seconds: self.start.elapsed().as_secs_f64(),
            resident: (self.counters.process)().map_or_else(|| state.probe.resident(), |process| process.now),
            allocated: Bytes((self.counters.take_allocated_peak)()),
            available: state.available,
            device: state.device_info().map_or(Bytes(0), |device| device.used),
            weights_read: Bytes(weights_read.saturating_sub(self.weights_read_before)),
        };
        state.series.push(look);
        state.resident_peak = state.resident_peak.max(look.resident);
        if let (Some(open), Some(stage)) = (&state.open, state.stages.last_mut()) {
            stage.end = look.seconds;
            stage.allocated_peak = stage.allocated_peak.max(look.allocated);
            stage.resident_peak = stage.resident_peak.max(look.resident);
            stage.device_peak = stage.device_peak.max(look.device);
            stage.weights_read = look.weights_read.saturating_sub(open.weights_read_before);
        }
        look
    }

    fn end_stage(&self, state: &mut State) {
        if state.open.is_some() {
            self.look_at(state);
            state.ask_the_kernel(&self.counters);
            state.open = None;
        }
    }

    fn read(&self, label: &str, given_back: Option<Bytes>) -> Reading {
        let memory = memory_info().with_process((self.counters.process)());
        let mut state = self.state();
        let look = self.look_at(&mut state);
        let reading = Reading {
            label: label.to_owned(),
            seconds: look.seconds,
            memory,
            device: state.device_info(),
            allocated: Bytes((self.counters.allocated)()),
            given_back,
        };
        state.readings.push(reading.clone());
        reading
    }

    fn peak(&self, state: &State) -> Bytes {
        state
            .resident_peak
            .max(raised(self.process_peak_before, &self.counters).unwrap_or_default())
    }
}

/// The kernel's high-water mark, if it is higher now than before.
fn raised(before: Option<Bytes>, counters: &Counters) -> Option<Bytes> {
    counters
        .process_peak()
        .filter(|&peak| before.is_some_and(|before| peak > before))
}

/// The sampling thread.
#[derive(Debug)]
struct Looker {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Looker {
    fn start(watched: Arc<Watched>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                watched.look();
            }
        };
        let thread = thread::Builder::new()
            .name("memory-monitor".to_owned())
            .spawn(work)?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        // It ends as soon as the sender is dropped.
        drop(self.stop);
        // A panic of the sampling thread does not concern the run.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MB: u64 = 1 << 20;

    fn megabytes(number: u64) -> Vec<u8> {
        std::hint::black_box(vec![1; (number * MB) as usize])
    }

    #[test]
    fn looks_by_itself_and_knows_each_stage_s_peak() {
        let _alone = crate::PROCESS.lock();
        let monitor = Monitor::start(Counters::NONE);
        monitor.stage("small");
        drop(megabytes(16));
        monitor.stage("large");
        let held = megabytes(96);
        thread::sleep(8 * INTERVAL);
        drop(held);
        monitor.end_stage();
        let timeline = monitor.timeline();
        let [small, large] = &timeline.stages[..] else {
            panic!("{:?}", timeline.stages)
        };
        assert_eq!((small.name.as_str(), large.name.as_str()), ("small", "large"));
        assert!(
            large.resident_peak.0 >= small.resident_peak.0 + 64 * MB,
            "{timeline:?}"
        );
        assert!(large.end - large.start >= 8.0 * INTERVAL.as_secs_f64());
        assert!(small.end <= large.start && large.end <= timeline.seconds);
        assert!(timeline.peak >= large.resident_peak);
        let during = timeline.samples.iter();
        let during = during.filter(|sample| sample.seconds > large.start && sample.seconds < large.end);
        // A busy machine may look less often.
        assert!(during.count() >= 2, "{timeline:?}");
    }

    #[test]
    fn an_allocation_between_two_looks_is_in_its_stage_s_peak_and_in_no_other() {
        static PEAK: AtomicU64 = AtomicU64::new(0);
        static READ: AtomicU64 = AtomicU64::new(1000);
        let monitor = Monitor::start(Counters {
            process: || {
                Some(ProcessMemory {
                    now: Bytes(11),
                    peak: Bytes(13 + READ.load(Ordering::Relaxed)),
                })
            },
            allocated: || 5,
            take_allocated_peak: || PEAK.swap(5, Ordering::Relaxed),
            weights_read: || READ.load(Ordering::Relaxed),
        });
        monitor.stage("first");
        PEAK.store(70, Ordering::Relaxed);
        READ.store(1400, Ordering::Relaxed);
        monitor.stage("second");
        PEAK.store(30, Ordering::Relaxed);
        READ.store(1500, Ordering::Relaxed);
        let reading = monitor.read("now");
        assert_eq!((reading.label.as_str(), reading.allocated), ("now", Bytes(5)));
        // The memory of the process is what the system counts, and its peak the kernel's.
        assert_eq!(
            (reading.memory.process, reading.memory.process_peak),
            (Bytes(11), Some(Bytes(1513)))
        );
        let timeline = monitor.timeline();
        let of = |stage: &Stage| (stage.allocated_peak, stage.weights_read);
        assert_eq!(of(&timeline.stages[0]), (Bytes(70), Bytes(400)));
        assert_eq!(of(&timeline.stages[1]), (Bytes(30), Bytes(100)));
        assert_eq!(timeline.stages[0].resident_peak, Bytes(1413));
        assert_eq!(timeline.peak, Bytes(1513));
        assert_eq!(
            timeline.samples.iter().map(|sample| sample.allocated).max(),
            Some(Bytes(70))
        );
        assert_eq!(
            timeline.samples.last().map(|sample| sample.weights_read),
            Some(Bytes(500))
        );
    }

    #[test]
    fn a_cleanup_says_what_it_gave_back() {
        let _alone = crate::PROCESS.lock();
        let monitor = Monitor::start(Counters::NONE);
        let held = megabytes(64);
        let reading = monitor.clean("after", || drop(held));
        assert!(
            reading.given_back.is_some_and(|bytes| bytes.0 >= 48 * MB),
            "{reading:?}"
        );
        assert_eq!(monitor.read("later").given_back, None);
        let labels: Vec<String> = monitor
            .timeline()
            .readings
            .into_iter()
            .map(|reading| reading.label)
            .collect();
        assert_eq!(labels, ["after", "later"]);
    }

    #[test]
    fn a_device_s_memory_is_watched_too() {
        static USED: AtomicU64 = AtomicU64::new(0);
        let monitor = Monitor::start(Counters::NONE);
        monitor.stage("before");
        assert_eq!(monitor.read("nothing yet").device, None);
        monitor.watch_device(|| {
            Some(DeviceInfo {
                used: Bytes(USED.load(Ordering::Relaxed)),
                total: Bytes(80 << 30),
            })
        });
        monitor.stage("at work");
        USED.store(6 << 30, Ordering::Relaxed);
        let reading = monitor.read("full");
        USED.store(1 << 30, Ordering::Relaxed);
        monitor.stage("after");
        assert!(
            reading.to_string().ends_with(", Device=6.0GB/80.0GB (7.5%)"),
            "{reading}"
        );
        let timeline = monitor.timeline();
        let peaks: Vec<u64> = timeline
            .stages
            .iter()
            .map(|stage| stage.device_peak.0 >> 30)
            .collect();
        assert_eq!(peaks, [0, 6, 1]);
        let curve = timeline.samples.iter().map(|sample| sample.device);
        assert_eq!(curve.max(), Some(Bytes(6 << 30)));
    }

    #[test]
    fn its_thread_ends_with_it() {
        let monitor = Monitor::start(Counters::NONE);
        let watched = Arc::downgrade(&monitor.watched);
        let start = Instant::now();
        drop(monitor);
        assert!(
            watched.upgrade().is_none(),
            "the thread still holds what it watches"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
