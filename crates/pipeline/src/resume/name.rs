//! What a run is called, and what belongs to it is recognised by.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The letters and digits of an id: those that are not taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const ID_LENGTH: usize = 8;

/// What a run is known by, from its beginning to its last picture, in however many processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunName {
    id: String,
    started: String,
    file_stem: String,
}

impl RunName {
    /// The name of a run that begins at `now`. No two are alike.
    pub fn new(now: &ZonedDateTime) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let started = now.strftime("%Y-%m-%dT%H:%M:%S%.9f%:z").to_string();
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let digest = Sha256::digest(format!("{started} {} {run}", std::process::id()));
        let letters = digest.iter().take(ID_LENGTH);
        Self {
            id: letters
                .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
                .collect(),
            started,
            file_stem: now.strftime("output_%Y-%m-%d_%H-%M-%S").to_string(),
        }
    }

    /// Eight letters and digits, for a person to type. Temporary files carry them too.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the run began, in local time, to the nanosecond: `2026-05-04T03:02:01.123456789+02:00`. The metadata of
    /// its pictures carry it, and it recognises them by that.
    pub fn started(&self) -> &str {
        &self.started
    }

    /// What the names of its pictures begin with: `output_2026-05-04_03-02-01`.
    pub fn file_stem(&self) -> &str {
        &self.file_stem
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_name_tells_when_the_run_began_and_is_no_other_s() {
        let now = DateTime::constant(2026, 5, 4, 3, 2, 1, 42)
            .to_zoned_datetime(TimeZone::fixed(jiff::tz::offset(2)))
            .unwrap();
        let (one, two) = (RunName::new(&now), RunName::new(&now));
        assert_eq!(one.started(), "2026-05-04T03:02:01.000000042+02:00");
        assert_eq!(one.file_stem(), "output_2026-05-04_03-02-01");
        assert!(one.id() != two.id());
        assert!(one.id().len() == 8 && one.id().bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
