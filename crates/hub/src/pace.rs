//! Notices downloads that come so slowly that they would hardly end.

use std::time::{Duration, Instant};

/// The pace of a download.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The begin of the current minute, and what has come since.
    begun: Instant,
    bytes: u64,
}

impl Pace {
    /// The time over which bytes are counted.
    const MINUTE: Duration = Duration::from_secs(60);
    /// Fewer bytes in that time are too slow: a model would take years.
    const LEAST: u64 = 16 << 10;
    /// Why a download that is too slow ends.
    pub(crate) const REASON: &str = "it sends less than 16 KB a minute";

    /// The pace of a download that begins `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: now, bytes: 0 }
    }

    /// Counts `bytes` that have come until `now`. Whether the download is too slow.
    pub(crate) fn is_too_slow(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        if now.saturating_duration_since(self.begun) < Self::MINUTE {
            return false;
        }
        let is_slow = self.bytes < Self::LEAST;
        *self = Self::new(now);
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun);
        for second in 0..60 {
            assert!(!pace.is_too_slow(1, after(second)), "{second}");
        }
        assert!(pace.is_too_slow(1, after(60)));
        // What is fast at first may stop later.
        let mut pace = Pace::new(begun);
        assert!(!pace.is_too_slow(1 << 20, after(1)));
        assert!(!pace.is_too_slow(0, after(60)));
        assert!(!pace.is_too_slow(0, after(119)));
        assert!(pace.is_too_slow(0, after(120)));
        let mut pace = Pace::new(begun);
        assert!(!pace.is_too_slow(Pace::LEAST, after(60)));
    }
}
