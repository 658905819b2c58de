//! The memory of an Apple GPU, and how soon blocks give theirs back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use candle_core::Device;
use sd_weights::{HostMemory, Residency, allocated_unified_memory, release_device_memory};

use crate::alone;
use crate::network::{Model, block_bytes, forward, input};

/// Whether the GPU is a stand-in, which computes slowly.
const IS_STANDIN: bool = !cfg!(target_os = "macos");
pub(crate) const SIDE: usize = if IS_STANDIN { 256 } else { 3072 };
/// Rows, uses of a block, milliseconds of delay.
pub(crate) const PACES: [(usize, usize, u64); 2] = if IS_STANDIN {
    [(4, 1, 20), (4, 1, 0)]
} else {
    [(8, 1, 5), (4096, 8, 0)]
};
/// What is taken beside blocks and activations.
pub(crate) const SLACK: u64 = PAGE;
const PAGE: u64 = 16 << 10;

pub(crate) fn open() -> Device {
    Device::new_metal(0).unwrap()
}

/// The pages of the weight, and the page of the bias.
pub(crate) fn taken_by_block() -> u64 {
    block_bytes(SIDE).next_multiple_of(PAGE)
}

/// No host memory caches blocks.
pub(crate) fn cached_in_host_memory(_: u64) -> u64 {
    0
}

/// A measurement of the memory of buffers, taken all the time by a thread.
pub(crate) struct Measured {
    device: Device,
    before: u64,
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Measured {
    pub(crate) fn start(device: &Device) -> Self {
        let before = settled(device);
        let (most, is_over) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (of_thread, ends, measured) = (most.clone(), is_over.clone(), device.clone());
        let thread = spawn(move || {
            let mut last = before;
            while !ends.load(Ordering::Relaxed) {
                let now = allocated_unified_memory(&measured).unwrap();
                // A buffer that is being made or freed may be counted twice for a moment.
                of_thread.fetch_max(now.min(last), Ordering::Relaxed);
                last = now;
                sleep(Duration::from_micros(20));
            }
        });
        Self {
            device: device.clone(),
            before,
            most,
            is_over,
            thread: Some(thread),
        }
    }

    /// The most bytes since the start, beside those before.
    pub(crate) fn peak(&self) -> u64 {
        self.most.load(Ordering::Relaxed) - self.before
    }

    /// The bytes that are left of those since the start.
    pub(crate) fn left(&self) -> u64 {
        settled(&self.device) - self.before
    }
}

/// The bytes of buffers when nothing has been freed for a while: Metal may free what commands held a moment after their
/// end, and a test before this one may have ended with commands on their way.
fn settled(device: &Device) -> u64 {
    release_device_memory(device).unwrap();
    let mut least = allocated_unified_memory(device).unwrap();
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(50) {
        sleep(Duration::from_millis(1));
        let now = allocated_unified_memory(device).unwrap();
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn memory_comes_back_while_later_blocks_are_encoded() {
    let _alone = alone();
    if std::env::var("METAL_STANDIN_PACE").is_ok_and(|pace| pace == "wait") {
        return;
    }
    let device = open();
    let model = Model::new(SIDE);
    let blocks = model.network(&device, Residency::Streamed, HostMemory::default());
    blocks.load().unwrap();
    let mut x = input(&device, 4);
    // The first pass compiles the kernels.
    forward(&blocks, &device, 4, 1);
    release_device_memory(&device).unwrap();
    let waits = waits();
    for _ in 0..3 {
        let begin = Instant::now();
        for block in blocks.pass().unwrap() {
            x = block.unwrap().forward(&x, 1);
        }
        // Longer, if nobody had committed the commands of a block before the next one was encoded.
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!("a pass was encoded in {:.1} ms", 1e3 * seconds);
        assert!(seconds < 2.0, "a pass took {seconds} s");
    }
    assert_eq!(self::waits(), waits, "the device was waited for");
    drop((x, blocks));
    // Another test opens a device of its own, which does not wait for what this one has been given.
    release_device_memory(&device).unwrap();
}

/// How often somebody waited for a stand-in.
#[cfg(not(target_os = "macos"))]
fn waits() -> u64 {
    objc2_metal::standin::counts().waits
}

/// A GPU does not tell.
#[cfg(target_os = "macos")]
fn waits() -> u64 {
    0
}

/// The other tests with a stand-in that ends command buffers at once, late, or when somebody waits for it.
#[cfg(not(target_os = "macos"))]
#[test]
fn the_pace_of_the_device_changes_nothing() {
    const VARIABLE: &str = "METAL_STANDIN_PACE";
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let _alone = alone();
    for pace in ["0", "20", "wait"] {
        let program = std::env::current_exe().unwrap();
        let tests = std::process::Command::new(program)
            .env(VARIABLE, pace)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&tests.stderr);
        assert!(
            tests.status.success(),
            "{pace}: {}\n{text}",
            String::from_utf8_lossy(&tests.stdout)
        );
    }
}
