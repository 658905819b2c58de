//! Retries of failed requests, with exponential backoff.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The failure of a request, which decides whether the request is retried.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A failure that a retry may get past.
    Transient {
        url: String,
        reason: String,
        /// The delay that the hub's `Retry-After` header asks for.
        after: Option<Duration>,
    },
    /// A failure that every retry would meet again.
    Permanent(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Permanent(error)
    }
}

/// The count of failed attempts of one request.
#[derive(Debug)]
pub(crate) struct Retries {
    failed: u32,
}

/// A delay before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// The failure that caused the delay.
    pub(crate) reason: String,
    pub(crate) duration: Duration,
}

impl Retries {
    /// The maximum number of retries.
    const RETRIES: u32 = 3;
    /// The delay before the first retry. Each further delay is twice as long.
    const FIRST_DELAY: Duration = Duration::from_millis(500);
    /// The longest delay that the hub may ask for.
    const LONGEST_DELAY: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        Self { failed: 0 }
    }

    /// Resets the count, because an attempt made progress.
    pub(crate) fn restart(&mut self) {
        self.failed = 0;
    }

    /// The delay before the attempt that follows `failure`.
    ///
    /// # Errors
    /// The failure is permanent, the retries are used up, or the hub asks for too long a delay.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<Backoff> {
        let (url, reason, after) = match failure {
            Failure::Permanent(error) => return Err(error),
            Failure::Transient { url, reason, after } => (url, reason, after),
        };
        if self.failed == Self::RETRIES {
            return Err(Error::GaveUp {
                url,
                reason,
                tries: Self::RETRIES + 1,
            });
        }
        let duration = after.unwrap_or(Self::FIRST_DELAY * 2_u32.pow(self.failed));
        if duration > Self::LONGEST_DELAY {
            return Err(Error::Busy { url, wait: duration });
        }
        self.failed += 1;
        tracing::info!("{url}: {reason}; once more in {duration:?}");
        Ok(Backoff { reason, duration })
    }
}

/// Calls `once` and retries transient failures, up to three times.
///
/// # Errors
/// `once` failed permanently or on every attempt, or `is_stopped` returned true.
pub(crate) fn with_retries<T>(
    is_stopped: &dyn Fn() -> bool,
    mut once: impl FnMut() -> Result<T, Failure>,
) -> Result<T> {
    let mut retries = Retries::new();
    loop {
        match once() {
            Ok(got) => return Ok(got),
            Err(failure) => wait(retries.after(failure)?.duration, is_stopped)?,
        }
    }
}

/// Sleeps for `duration`.
///
/// # Errors
/// `is_stopped` returned true.
pub(crate) fn wait(duration: Duration, is_stopped: impl Fn() -> bool) -> Result<()> {
    const POLL_INTERVAL: Duration = Duration::from_millis(50);
    let end = Instant::now() + duration;
    loop {
        if is_stopped() {
            return Err(Error::Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(POLL_INTERVAL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient(after: Option<u64>) -> Failure {
        Failure::Transient {
            url: "http://hub/x".to_owned(),
            reason: "503".to_owned(),
            after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn transient_failures_are_retried_three_times_with_growing_delays() {
        let mut retries = Retries::new();
        let mut pause = || {
            retries
                .after(transient(None))
                .map(|pause| pause.duration.as_millis())
        };
        assert_eq!(
            [pause().ok(), pause().ok(), pause().ok()],
            [Some(500), Some(1000), Some(2000)]
        );
        assert!(matches!(pause(), Err(Error::GaveUp { tries: 4, .. })));
        retries.restart();
        assert!(
            retries
                .after(transient(Some(7)))
                .is_ok_and(|pause| pause.duration.as_secs() == 7)
        );
        assert!(matches!(
            retries.after(transient(Some(3600))),
            Err(Error::Busy { .. })
        ));
        let permanent = Failure::Permanent(Error::Stopped);
        assert!(matches!(retries.after(permanent), Err(Error::Stopped)));
    }
}
