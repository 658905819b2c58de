//! [`Ticker`]: a thread that calls a function at a steady pace until it is dropped.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Calls a function at a steady pace.
pub(crate) struct Ticker {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls `tick` every `pace` from now on. None where the system refuses a thread: then nothing ticks, and the work
    /// itself goes on.
    pub(crate) fn start(pace: Duration, mut tick: impl FnMut() + Send + 'static) -> Option<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let work = move || {
            while stopped.recv_timeout(pace) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        };
        let thread = thread::Builder::new()
            .name("ticker".to_owned())
            .spawn(work)
            .ok()?;
        Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    /// Ends the thread and waits for it, so that nothing ticks afterwards.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed, and does not concern the work.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ticks_until_it_is_dropped() {
        let ticks = Arc::new(AtomicU32::new(0));
        let counted = ticks.clone();
        let ticker = Ticker::start(Duration::from_millis(1), move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        while ticks.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        drop(ticker);
        let at_end = ticks.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(10));
        assert_eq!(ticks.load(Ordering::Relaxed), at_end);
    }

    #[test]
    fn it_ends_at_once() {
        let start = Instant::now();
        drop(Ticker::start(Duration::from_secs(60), || {}));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
