//! [`MemoryLines`]: which readings of the memory are worth a line.

use sd_pipeline::Bytes;
use sd_pipeline::memory::Reading;

/// A change of less than this is no news.
const NEWS: u64 = 32 << 20;
/// And one of less than this part of the figure.
const PART: u64 = 16;

/// Chooses the readings that say something new.
#[derive(Debug)]
pub(crate) struct MemoryLines {
    /// Whether every reading is shown.
    shows_all: bool,
    /// The figures that were shown last: of the process, and of the device.
    shown: Option<[Bytes; 2]>,
}

impl MemoryLines {
    /// Lines for all readings, or only for news.
    pub(crate) fn new(shows_all: bool) -> Self {
        Self {
            shows_all,
            shown: None,
        }
    }

    /// The line for `reading`, if it says something new: it is the first, or a figure has moved since the last line.
    pub(crate) fn line(&mut self, reading: &Reading) -> Option<String> {
        let device = reading.device.map_or(Bytes(0), |device| device.used);
        let figures = [reading.memory.process, device];
        let has_moved = self.shown.is_none_or(|shown| {
            shown
                .iter()
                .zip(figures)
                .any(|(&shown, figure)| is_news(shown, figure))
        });
        (self.shows_all || has_moved).then(|| {
            self.shown = Some(figures);
            format!("💾 Memory [{}]: {reading}", reading.label)
        })
    }
}

fn is_news(before: Bytes, now: Bytes) -> bool {
    let moved = before.0.abs_diff(now.0);
    moved >= NEWS && moved >= before.0.max(now.0) / PART
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn small_changes_are_no_news() {
        for (before, now, expected) in [
            (30, 40, false),
            (30, 62, true),
            (62, 30, true),
            (8000, 8400, false),
            (8000, 8600, true),
            (0, 0, false),
        ] {
            assert_eq!(
                is_news(Bytes(before * MB), Bytes(now * MB)),
                expected,
                "{before} {now}"
            );
        }
    }
}
