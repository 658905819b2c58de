//! [`ByteProgress`]: how many of a known number of bytes are done, and how that is written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sd_pipeline::Bytes;

use crate::activity::Place;
use crate::progress::{bar, clock};

/// The rate is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(15);

/// How many bytes are done.
#[derive(Debug)]
pub(crate) struct ByteProgress {
    begun: Instant,
    done: u64,
    all: u64,
    /// When how many bytes were done, within the window.
    marks: VecDeque<(Instant, u64)>,
}

impl ByteProgress {
    /// Work on `all` bytes, of which `done` are done `now`.
    pub(crate) fn new(now: Instant, done: u64, all: u64) -> Self {
        Self {
            begun: now,
            done,
            all,
            marks: VecDeque::from([(now, done)]),
        }
    }

    /// Takes note that `done` bytes are done `now`.
    pub(crate) fn set(&mut self, now: Instant, done: u64) {
        self.done = done;
        // One mark in a second is enough.
        let is_due = |&(last, _): &(Instant, u64)| now.saturating_duration_since(last).as_secs() >= 1;
        if self.marks.back().is_none_or(is_due) {
            self.marks.push_back((now, done));
        }
        while self.marks.len() > 1
            && self
                .marks
                .front()
                .is_some_and(|&(first, _)| now.saturating_duration_since(first) > WINDOW)
        {
            self.marks.pop_front();
        }
    }

    /// Takes note that `more` bytes are done `now`.
    pub(crate) fn add(&mut self, now: Instant, more: u64) {
        self.set(now, self.done.saturating_add(more));
    }

    /// What is done and what is left, in a line that begins with `doing`.
    pub(crate) fn text(&self, doing: &str, place: Place, now: Instant) -> String {
        let bar = match place {
            Place::StatusLine => format!("{} ", bar(self.done, self.all)),
            Place::Line => String::new(),
        };
        let (done, all) = (Bytes(self.done), Bytes(self.all));
        let elapsed = clock(now.saturating_duration_since(self.begun));
        let rate = self.rate(now);
        if rate < 1.0 {
            return format!("{doing}: {bar}{done} of {all}, {elapsed}");
        }
        let left = self.all.saturating_sub(self.done) as f64 / rate;
        let left = Duration::try_from_secs_f64(left).map_or_else(|_| String::new(), clock);
        format!(
            "{doing}: {bar}{done} of {all}, {}/s, {elapsed}, {left} left",
            Bytes(rate as u64)
        )
    }

    /// Bytes in a second.
    fn rate(&self, now: Instant) -> f64 {
        let Some(&(since, before)) = self.marks.front() else {
            return 0.0;
        };
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        // The first moment shows no rate.
        if seconds < 0.5 {
            return 0.0;
        }
        self.done.saturating_sub(before) as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = ByteProgress::new(start, 0, 1000 * MB);
        assert_eq!(
            progress.text("downloading", Place::Line, at(0)),
            "downloading: 0 bytes of 1000.0MB, 0:00"
        );
        for second in 1..=20 {
            progress.set(at(second), second * 20 * MB);
        }
        assert_eq!(
            progress.text("downloading", Place::Line, at(20)),
            "downloading: 400.0MB of 1000.0MB, 20.0MB/s, 0:20, 0:30 left"
        );
        // It stands still.
        for second in 21..=40 {
            progress.set(at(second), 400 * MB);
        }
        let text = progress.text("downloading", Place::StatusLine, at(60));
        assert_eq!(
            text,
            "downloading: ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 400.0MB of 1000.0MB, 1:00"
        );
    }
}
