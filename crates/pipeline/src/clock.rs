//! The local time, as file names and metadata write it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// The current time in the user's time zone.
pub(crate) fn now() -> ZonedDateTime {
    at(SystemTime::now())
}

/// The local time at `moment`, at most the last second of the year 9999: file names and metadata have four
/// digits for the year.
fn at(moment: SystemTime) -> ZonedDateTime {
    ZonedDateTime::try_from(moment).unwrap_or_else(|_| {
        let nearest = match moment < UNIX_EPOCH {
            true => Timestamp::MIN,
            false => Timestamp::MAX,
        };
        nearest.to_zoned_datetime(TimeZone::UTC)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_far_ahead_or_behind_shows_a_time() {
        let day = Duration::from_secs(86_400);
        for (moment, year) in [
            (UNIX_EPOCH + 200 * day, 1970),
            (UNIX_EPOCH + 5_000_000 * day, 9999),
            (UNIX_EPOCH - 5_000_000 * day, -9999),
        ] {
            let shown = at(moment);
            assert_eq!(shown.year(), year);
            assert!(!shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().is_empty());
        }
    }
}
