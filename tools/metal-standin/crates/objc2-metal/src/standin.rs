//! What can be set, and what was counted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, Once, OnceLock};

/// From the environment; README.md says what each is.
pub struct Settings {
    pub dry: bool,
    pub architecture: String,
    pub registry_id: u64,
    pub working_set: u64,
    pub longest_buffer: usize,
    pub limit: Option<u64>,
    /// Which command buffer fails, from 1.
    pub fails: Option<u64>,
    pub has_gpu: bool,
    pub has_residency_sets: bool,
    pub shuffle: Option<u64>,
    pub pace: Pace,
    pub report: Option<PathBuf>,
    pub trace: Option<PathBuf>,
    pub cache: PathBuf,
    pub shim: PathBuf,
    pub compiler: Vec<String>,
}
/// When a command buffer is over. What waits for it, or needs its place in the queue, never waits longer.
pub enum Pace {
    AtOnce,
    After(std::time::Duration),
    WhenWaitedFor,
}
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let text = |name: &str| std::env::var(format!("METAL_STANDIN_{name}")).ok().filter(|text| !text.is_empty());
        let number = |name: &str| text(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("METAL_STANDIN_{name}: {text}")));
        // Built in, so that a program that is started by hand finds it too.
        let home = text("HOME").or_else(|| option_env!("METAL_STANDIN_HOME").map(str::to_owned));
        let home = PathBuf::from(home.expect("METAL_STANDIN_HOME names no folder: see cargo.sh"));
        let compiler = text("CXX").or_else(|| std::fs::read_to_string(home.join("compiler")).ok());
        let compiler = compiler.expect("METAL_STANDIN_CXX names no compiler: see cargo.sh");
        Settings {
            dry: text("DRY").is_some_and(|text| text != "0"),
            architecture: text("ARCHITECTURE").unwrap_or_else(|| "applegpu_g13s".to_owned()),
            registry_id: number("REGISTRY_ID").unwrap_or(1),
            working_set: number("WORKING_SET").unwrap_or(12 << 30),
            longest_buffer: number("LONGEST_BUFFER").unwrap_or(u64::MAX) as usize,
            limit: number("LIMIT"),
            fails: number("FAILS"),
            has_gpu: number("GPUS") != Some(0),
            has_residency_sets: text("MACOS14").is_none(),
            shuffle: number("SHUFFLE"),
            pace: match text("PACE").as_deref() {
                Some("wait") => Pace::WhenWaitedFor,
                _ => match number("PACE").unwrap_or(1) {
                    0 => Pace::AtOnce,
                    milliseconds => Pace::After(std::time::Duration::from_millis(milliseconds)),
                },
            },
            report: text("REPORT").map(PathBuf::from),
            trace: text("TRACE").map(PathBuf::from),
            cache: text("CACHE").map_or_else(|| home.join("cache"), PathBuf::from),
            shim: home.join("msl"),
            compiler: compiler.split_whitespace().map(str::to_owned).collect(),
        }
    })
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Bytes and number of the buffers that there are.
    pub live: u64,
    pub live_buffers: u64,
    pub peak: u64,
    pub peak_buffers: u64,
    /// How many buffers of each length there are, and were about when there was most.
    pub sizes: BTreeMap<u64, u64>,
    pub sizes_at_peak: BTreeMap<u64, u64>,
    sizes_taken_at: u64,
    /// Buffers made and their bytes, of which filled from the host at once.
    pub made: u64,
    pub made_bytes: u64,
    pub uploaded: u64,
    pub refused: u64,
    /// Accesses to one buffer that neither a barrier nor a fence puts in order, and the first of them.
    pub hazards: u64,
    pub first_hazard: Option<String>,
    pub dispatches: u64,
    /// What kernels were given to read and to write, in bytes: each buffer of each dispatch, from its offset to its end.
    pub moved: u64,
    pub barriers: u64,
    pub blits: u64,
    pub blit_bytes: u64,
    pub commits: u64,
    pub waits: u64,
    pub residency_commits: u64,
    pub kernels: BTreeMap<String, u64>,
}
static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);
static REPORTED: Once = Once::new();

impl Counts {
    pub(crate) fn made(&mut self, len: u64) {
        self.live += len;
        self.live_buffers += 1;
        self.made += 1;
        self.made_bytes += len;
        *self.sizes.entry(len).or_default() += 1;
        self.peak = self.peak.max(self.live);
        self.peak_buffers = self.peak_buffers.max(self.live_buffers);
        if self.live > self.sizes_taken_at + self.sizes_taken_at / 128 {
            self.sizes_taken_at = self.live;
            self.sizes_at_peak = self.sizes.clone();
        }
    }
    pub(crate) fn freed(&mut self, len: u64) {
        self.live -= len;
        self.live_buffers -= 1;
        if let Some(count) = self.sizes.get_mut(&len) {
            *count -= 1;
            if *count == 0 {
                self.sizes.remove(&len);
            }
        }
    }
}

pub(crate) fn count<R>(with: impl FnOnce(&mut Counts) -> R) -> R {
    REPORTED.call_once(|| {
        if settings().report.is_some() {
            extern "C" fn report() {
                if let Some(path) = &settings().report {
                    let mut counts = counts();
                    let named = std::mem::take(&mut counts.kernels);
                    let mut text = format!("{counts:#?}\n");
                    for (name, count) in &named {
                        text.push_str(&format!("kernel {name} {count}\n"));
                    }
                    let _ = std::fs::write(path, text);
                }
            }
            unsafe { libc::atexit(report) };
        }
    });
    with(COUNTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert_default())
}
pub fn counts() -> Counts {
    count(|counts| counts.clone())
}
/// Looks for new peaks from what there is now.
pub fn restart_peak() {
    count(|counts| {
        counts.peak = counts.live;
        counts.peak_buffers = counts.live_buffers;
        counts.sizes_taken_at = 0;
    });
}

/// A line of the trace for each command buffer.
pub(crate) fn committed() {
    let counts = count(|counts| {
        counts.commits += 1;
        counts.clone()
    });
    if let Some(path) = &settings().trace {
        static START: OnceLock<(std::time::Instant, Mutex<std::fs::File>)> = OnceLock::new();
        let (start, file) = START.get_or_init(|| {
            let mut file = std::fs::File::create(path).expect("METAL_STANDIN_TRACE can be written");
            let _ = writeln!(file, "seconds\tcommits\tdispatches\twaits\tlive_bytes\tlive_buffers\tpeak_bytes\tuploaded_bytes\tmade");
            (std::time::Instant::now(), Mutex::new(file))
        });
        let _ = writeln!(
            file.lock().unwrap(),
            "{:.3}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            start.elapsed().as_secs_f64(), counts.commits, counts.dispatches, counts.waits, counts.live, counts.live_buffers,
            counts.peak, counts.uploaded, counts.made
        );
    }
}
