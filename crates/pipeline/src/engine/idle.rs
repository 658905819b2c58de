//! Memory pressure between two requests: cached blocks and prompts are released while other programs need the
//! memory.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sd_memory::{Bytes, Watcher};

use crate::memory::cleanup_memory;
use crate::request_cache::RequestCache;

/// The interval between two readings of the machine's memory.
const INTERVAL: Duration = Duration::from_secs(1);

/// A thread that watches the machine's memory until it is dropped.
#[derive(Debug)]
pub(super) struct IdleWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IdleWatch {
    /// Starts the thread, which releases as much of `cache` as the machine is short of. `None` if the cache
    /// is empty or the system refuses a thread; the next run checks the memory itself.
    pub(super) fn start(cache: &RequestCache) -> Option<Self> {
        let watcher = Watcher::start();
        Self::of(cache, INTERVAL, move || watcher.shortfall())
    }

    fn of(
        cache: &RequestCache,
        interval: Duration,
        shortfall: impl Fn() -> Bytes + Send + 'static,
    ) -> Option<Self> {
        if cache.bytes() == Bytes(0) {
            return None;
        }
        let cache = cache.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let work = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let shortfall = shortfall();
                if shortfall > Bytes(0) && cache.blocks.release(shortfall.0) > 0 {
                    cleanup_memory(true);
                }
            }
        };
        let thread = thread::Builder::new().name("idle-memory".to_owned()).spawn(work);
        Some(Self {
            stop: Some(stop),
            thread: Some(thread.ok()?),
        })
    }
}

impl Drop for IdleWatch {
    fn drop(&mut self) {
        // The thread ends when the sender is dropped.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use candle_core::{DType, Device, Tensor};
    use sd_weights::{Blocks, Checkpoint, Residency, WeightOptions, WeightType, Weights};

    use super::*;

    /// A cache with one block of 4 KB.
    fn filled(folder: &std::path::Path) -> RequestCache {
        let path = folder.join("network.safetensors");
        let tensor = Tensor::zeros(1024, DType::F32, &Device::Cpu).unwrap();
        tensor.save_safetensors("weight", &path).unwrap();
        let cache = RequestCache::default();
        cache.limit_to(Bytes(1 << 20));
        let options = WeightOptions {
            block_cache: Some(cache.blocks.clone()),
            ..WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Resident)
        };
        let weights = Weights::new(Checkpoint::open_file(path).unwrap(), options).cached_as("network");
        let blocks = Blocks::single(weights, |weights| weights.tensor("weight", &[1024])).unwrap();
        blocks.load().unwrap();
        drop(blocks);
        assert_eq!(cache.bytes(), Bytes(4096));
        cache
    }

    #[test]
    fn what_stays_is_given_up_when_memory_becomes_short() {
        static SHORTFALL: AtomicU64 = AtomicU64::new(0);
        let folder = tempfile::tempdir().unwrap();
        let cache = filled(folder.path());
        let watch = IdleWatch::of(&cache, Duration::from_millis(1), || {
            Bytes(SHORTFALL.load(Ordering::Relaxed))
        });
        assert!(watch.is_some());
        thread::sleep(Duration::from_millis(20));
        assert_eq!(cache.bytes(), Bytes(4096));
        SHORTFALL.store(1, Ordering::Relaxed);
        let start = Instant::now();
        while cache.bytes() > Bytes(0) {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing was released");
            thread::sleep(Duration::from_millis(1));
        }
        drop(watch);
        assert!(IdleWatch::start(&cache).is_none());
    }
}
