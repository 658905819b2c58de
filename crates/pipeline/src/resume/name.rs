//! The name of a run, which identifies its files.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The characters of an id, without those that look alike.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const ID_LENGTH: usize = 8;

/// The pattern of a time to the second, the beginning of [`RunName::started`].
const SECONDS: &str = "0000-00-00T00:00:00";
/// How much of it is the date.
const DATE: usize = 10;
/// The longest time, with fraction and UTC offset.
const LONGEST_MOMENT: usize = 48;

/// The name of a run, the same in every process that works on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeptName")]
pub struct RunName {
    id: String,
    started: String,
    /// It is derived from the start time.
    #[serde(skip_serializing)]
    file_stem: String,
}

/// The name as it is stored.
#[derive(Deserialize)]
struct KeptName {
    id: String,
    started: String,
}

impl TryFrom<KeptName> for RunName {
    type Error = &'static str;

    fn try_from(KeptName { id, started }: KeptName) -> Result<Self, Self::Error> {
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| ALPHABET.contains(&byte)) {
            return Err("the id is none of a run");
        }
        let file_stem = file_stem(&started).ok_or("the beginning of the run is no moment")?;
        Ok(Self {
            id,
            started,
            file_stem,
        })
    }
}

/// The prefix of the image names of a run that `started` at this time; None if it is not a valid time.
fn file_stem(started: &str) -> Option<String> {
    let (moment, rest) = started.split_at_checked(SECONDS.len())?;
    let is_alike = |(found, pattern): (u8, u8)| match pattern {
        b'0' => found.is_ascii_digit(),
        other => found == other,
    };
    let is_moment = moment.bytes().zip(SECONDS.bytes()).all(is_alike);
    let is_rest = |byte: u8| byte.is_ascii_digit() || b".:+-".contains(&byte);
    let is_whole = is_moment && started.len() <= LONGEST_MOMENT && rest.bytes().all(is_rest);
    is_whole.then(|| format!("output_{}", moment.replace('T', "_").replace(':', "-")))
}

impl RunName {
    /// A unique name for a run that starts at `now`.
    pub fn new(now: &ZonedDateTime) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let started = now.strftime("%Y-%m-%dT%H:%M:%S%.9f%:z").to_string();
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 16];
        // Without random bytes the time and the process id are unique on one machine.
        let _ = getrandom::fill(&mut random);
        let run = format!("{started} {} {run}", std::process::id());
        let digest = Sha256::new().chain_update(run).chain_update(random).finalize();
        let letters = digest.iter().take(ID_LENGTH);
        Self {
            id: letters
                .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
                .collect(),
            started,
            file_stem: now.strftime("output_%Y-%m-%d_%H-%M-%S").to_string(),
        }
    }

    /// The names of `count` runs that generate the parts of one request: their files begin with the same time, and the runs
    /// are told apart by the nanosecond.
    pub(crate) fn of_parts(now: &ZonedDateTime, count: usize) -> Vec<Self> {
        const MILLISECOND: i32 = 1_000_000;
        let begun = now.subsec_nanosecond() / MILLISECOND * MILLISECOND;
        let at = |part: usize| {
            let part = i32::try_from(part % MILLISECOND as usize).unwrap_or(0);
            let moment = now.with().subsec_nanosecond(begun + part).build();
            Self::new(&moment.unwrap_or_else(|_| now.clone()))
        };
        (0..count).map(at).collect()
    }

    /// The name of file `number` without its extension: `output_2026-05-04_03-02-01_001`.
    pub(crate) fn file_name(&self, number: usize) -> String {
        format!("{}_{number:03}", self.file_stem)
    }

    /// The moment of the start, to the second.
    pub(crate) fn moment(&self) -> Option<SystemTime> {
        let moment: jiff::Timestamp = self.started.parse().ok()?;
        let seconds = u64::try_from(moment.as_second()).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// The date of the start: `2026-05-04`.
    pub(crate) fn date(&self) -> String {
        self.started[..DATE].to_owned()
    }

    /// The time of the start, as file names have it: `03-02-01`.
    pub(crate) fn time(&self) -> String {
        self.started[DATE + 1..SECONDS.len()].replace(':', "-")
    }

    /// The number of the file called `name`, without its extension, if it belongs to this run.
    pub(crate) fn number_of(&self, name: &str) -> Option<usize> {
        let number = name
            .strip_prefix(&self.file_stem)?
            .strip_prefix('_')?
            .parse()
            .ok()?;
        (self.file_name(number) == name).then_some(number)
    }

    /// Eight letters and digits, for people to type. The names of temporary files contain it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The start time of the run in local time, to the nanosecond: `2026-05-04T03:02:01.123456789+02:00`. It
    /// is in the metadata of the run's images, and identifies them.
    pub fn started(&self) -> &str {
        &self.started
    }

    /// The prefix of its image names: `output_2026-05-04_03-02-01`.
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
    fn a_name_has_the_start_time_and_is_unique() {
        let now = DateTime::constant(2026, 5, 4, 3, 2, 1, 42)
            .to_zoned_datetime(TimeZone::fixed(jiff::tz::offset(2)))
            .unwrap();
        let (one, two) = (RunName::new(&now), RunName::new(&now));
        assert_eq!(one.started(), "2026-05-04T03:02:01.000000042+02:00");
        assert_eq!(one.file_stem(), "output_2026-05-04_03-02-01");
        assert!(one.id() != two.id());
        assert!(one.id().len() == 8 && one.id().bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_eq!(one.number_of(&one.file_name(7)), Some(7));
        assert_eq!(one.number_of(&one.file_name(12_345)), Some(12_345));
        for other in [
            "output_2026-05-04_03-02-01_7",
            "output_2026-05-04_03-02-02_007",
            "_007",
            "",
        ] {
            assert_eq!(one.number_of(other), None, "{other}");
        }
    }

    #[test]
    fn parts_of_a_request_have_the_same_file_names_and_are_runs_of_their_own() {
        let now = DateTime::constant(2026, 12, 31, 23, 59, 59, 999_999_999)
            .to_zoned_datetime(TimeZone::UTC)
            .unwrap();
        let names = RunName::of_parts(&now, 3);
        let started: Vec<&str> = names.iter().map(RunName::started).collect();
        let ends = ["999000000", "999000001", "999000002"];
        let expected = ends.map(|end| format!("2026-12-31T23:59:59.{end}+00:00"));
        assert_eq!(started, expected);
        assert!(
            names
                .iter()
                .all(|name| name.file_stem() == "output_2026-12-31_23-59-59")
        );
    }

    #[test]
    fn a_name_that_was_written_down_is_looked_at() {
        let name = RunName::new(&ZonedDateTime::now());
        let text = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<RunName>(&text).unwrap(), name);
        let read = |id: &str, started: &str| {
            let text = serde_json::json!({ "id": id, "started": started }).to_string();
            serde_json::from_str::<RunName>(&text)
        };
        assert!(read("abcdefgh", name.started()).is_ok());
        for id in [
            "",
            "../../ab",
            "ABCDEFGH",
            "abcdefg",
            "abcdefghi",
            "abcdefg/",
            "abcdefg\u{e9}",
        ] {
            assert!(read(id, name.started()).is_err(), "{id}");
        }
        for started in [
            "",
            "../../../../etc/x",
            "2026-05-04T03:02:0",
            "2026-05-04T03:02:01/../x",
            "2026-05-04_03:02:01",
            "2026/05/04T03:02:01+00:00",
            "202\u{e9}-05-04T03:02:01+00:00",
        ] {
            assert!(read("abcdefgh", started).is_err(), "{started}");
        }
    }
}
