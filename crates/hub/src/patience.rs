//! What is tried again, how often, and after how long.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It may go well the next time.
    Transient {
        url: String,
        reason: String,
        /// After how long, where the hub says.
        after: Option<Duration>,
    },
    /// It would fail again.
    Lasting(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

/// How often a thing is still tried again.
#[derive(Debug)]
pub(crate) struct Patience {
    failed: u32,
}

/// A pause before the next try.
#[derive(Debug)]
pub(crate) struct Pause {
    /// Why there is one.
    pub(crate) reason: String,
    pub(crate) duration: Duration,
}

impl Patience {
    /// How often a thing is tried again.
    const RETRIES: u32 = 3;
    /// The first pause; each is twice as long as the one before.
    const FIRST_PAUSE: Duration = Duration::from_millis(500);
    /// The longest pause that the hub may ask for.
    const LONGEST_PAUSE: Duration = Duration::from_secs(60);

    pub(crate) fn new() -> Self {
        Self { failed: 0 }
    }

    /// Begins to count anew: something went well.
    pub(crate) fn restart(&mut self) {
        self.failed = 0;
    }

    /// The pause to be made after `fault`.
    ///
    /// # Errors
    /// The fault is lasting, or has come too often.
    pub(crate) fn after(&mut self, fault: Fault) -> Result<Pause> {
        let (url, reason, after) = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Transient { url, reason, after } => (url, reason, after),
        };
        if self.failed == Self::RETRIES {
            return Err(Error::GaveUp {
                url,
                reason,
                tries: Self::RETRIES + 1,
            });
        }
        let duration = after.unwrap_or(Self::FIRST_PAUSE * 2_u32.pow(self.failed));
        if duration > Self::LONGEST_PAUSE {
            return Err(Error::Busy { url, wait: duration });
        }
        self.failed += 1;
        tracing::info!("{url}: {reason}; once more in {duration:?}");
        Ok(Pause { reason, duration })
    }
}

/// Does `once` until it goes well, or fails for good, or `is_stopped` says so.
///
/// # Errors
/// It fails for good, or has failed too often, or was stopped.
pub(crate) fn patiently<T>(
    is_stopped: &dyn Fn() -> bool,
    mut once: impl FnMut() -> Result<T, Fault>,
) -> Result<T> {
    let mut patience = Patience::new();
    loop {
        match once() {
            Ok(got) => return Ok(got),
            Err(fault) => wait(patience.after(fault)?.duration, is_stopped)?,
        }
    }
}

/// Waits for `duration`, or until `is_stopped` says so.
///
/// # Errors
/// It did.
pub(crate) fn wait(duration: Duration, is_stopped: impl Fn() -> bool) -> Result<()> {
    const GLANCE: Duration = Duration::from_millis(50);
    let end = Instant::now() + duration;
    loop {
        if is_stopped() {
            return Err(Error::Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(GLANCE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient(after: Option<u64>) -> Fault {
        Fault::Transient {
            url: "http://hub/x".to_owned(),
            reason: "503".to_owned(),
            after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_thing_is_tried_again_three_times_with_longer_and_longer_pauses() {
        let mut patience = Patience::new();
        let mut pause = || {
            patience
                .after(transient(None))
                .map(|pause| pause.duration.as_millis())
        };
        assert_eq!(
            [pause().ok(), pause().ok(), pause().ok()],
            [Some(500), Some(1000), Some(2000)]
        );
        assert!(matches!(pause(), Err(Error::GaveUp { tries: 4, .. })));
        patience.restart();
        assert!(
            patience
                .after(transient(Some(7)))
                .is_ok_and(|pause| pause.duration.as_secs() == 7)
        );
        assert!(matches!(
            patience.after(transient(Some(3600))),
            Err(Error::Busy { .. })
        ));
        let lasting = Fault::Lasting(Error::Stopped);
        assert!(matches!(patience.after(lasting), Err(Error::Stopped)));
    }
}
