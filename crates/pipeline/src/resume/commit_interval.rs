//! The interval between commits of a run's state to the disk.

use std::time::{Duration, Instant};

/// Decides when the next commit is due, so that commits take a hundredth of the run's time. If steps are
/// long, that is after every step.
#[derive(Debug)]
pub(super) struct CommitInterval {
    start: Instant,
    last_end: Instant,
    /// The total time of all commits.
    spent: Duration,
    /// The time of the slowest commit, as an estimate of the next.
    slowest: Duration,
}

impl CommitInterval {
    /// The inverse of the share of time for commits.
    const INVERSE_SHARE: u32 = 100;
    /// The most work that a kill can lose, however slow the disk is.
    const LONGEST_PAUSE: Duration = Duration::from_secs(60);

    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            last_end: start,
            spent: Duration::ZERO,
            slowest: Duration::ZERO,
        }
    }

    /// Records a commit from `begin` to `end`.
    pub(super) fn note(&mut self, begin: Instant, end: Instant) {
        let cost = end.saturating_duration_since(begin);
        self.last_end = end;
        self.spent += cost;
        self.slowest = self.slowest.max(cost);
    }

    /// Whether another commit is due at `now`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let wanted = (self.spent + self.slowest).saturating_mul(Self::INVERSE_SHARE);
        now.saturating_duration_since(self.start) >= wanted
            || now.saturating_duration_since(self.last_end) >= Self::LONGEST_PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn commits_take_a_hundredth_of_the_time() {
        let start = Instant::now();
        let mut commit_interval = CommitInterval::new(start);
        assert!(commit_interval.is_due(start), "nothing is known of the disk yet");
        commit_interval.note(start, start + at(3));
        assert!(!commit_interval.is_due(start + at(599)) && commit_interval.is_due(start + at(600)));
        // Steps of 25 ms for 20 seconds, with commits of 1 to 5 ms.
        let mut now = start + at(3);
        for step in 0..800 {
            now += at(25);
            if commit_interval.is_due(now) {
                let end = now + at(1 + step % 5);
                commit_interval.note(now, end);
                now = end;
            }
        }
        assert!(
            commit_interval.spent <= (now - start) / 100,
            "{:?}",
            commit_interval.spent
        );
        assert!(
            commit_interval.spent >= (now - start) / 150,
            "{:?}",
            commit_interval.spent
        );
    }

    #[test]
    fn a_slow_disk_costs_a_minute_at_most() {
        let start = Instant::now();
        let mut commit_interval = CommitInterval::new(start);
        let end = start + at(5_000);
        commit_interval.note(start, end);
        assert!(!commit_interval.is_due(end + at(59_999)) && commit_interval.is_due(end + at(60_000)));
    }
}
