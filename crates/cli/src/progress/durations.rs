//! How durations are written in progress.

use std::time::Duration;

/// A duration as a clock shows it: `0:07`, `12:30`, `1:02:03`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A duration in the precision of a prediction: `7 s`, `3 min`, `2 h`.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 89.5 {
        format!("{:.0} s", seconds.max(1.0))
    } else if seconds < 89.5 * 60.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_read_them() {
        let of = |seconds| {
            (
                clock(Duration::from_secs(seconds)),
                rough(Duration::from_secs(seconds)),
            )
        };
        for (seconds, exact, about) in [
            (0, "0:00", "1 s"),
            (7, "0:07", "7 s"),
            (89, "1:29", "89 s"),
            (90, "1:30", "2 min"),
            (750, "12:30", "12 min"),
            (5400, "1:30:00", "1.5 h"),
        ] {
            assert_eq!(of(seconds), (exact.to_owned(), about.to_owned()));
        }
    }
}
