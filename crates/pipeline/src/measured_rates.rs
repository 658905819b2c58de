//! The rates of this machine's devices: measured, then read from the user's cache, and corrected by runs.
//!
//! An entry holds what it was measured for: the device, its threads, the type of weights and the version of the
//! program. One that is damaged or was measured for anything else counts as missing.
//!
//! Other programs slow a short measurement down. So it is repeated at later times, of which the best counts, until a
//! run has confirmed it. A run that contradicts it replaces it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use candle_core::{DType, Device};
use sd_ops::Rates;
use sd_weights::{gpu_name, metal_gpu};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checksummed::{self, Durability};
use crate::plan::Arithmetic;
use crate::user_dirs::UserDirs;
use crate::{Result, VERSION, device, machine};

const ENTRY: &str = "safetensors";
/// How often a device is measured.
const MEASUREMENTS: u32 = 5;
/// The time between two measurements, after which other programs may have ended.
const BETWEEN: Duration = Duration::from_secs(600);
/// A run contradicts the rates if it takes so many times longer or shorter than they predict.
const CONTRADICTION: f64 = 2.0;
/// In shorter steps other things than arithmetic may take most of the time.
const LONG_STEP: Duration = Duration::from_secs(1);

/// What rates depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RatesKey {
    /// The device's name on the command line.
    device: String,
    /// The name of the chip.
    chip: Option<String>,
    /// The threads that compute on a CPU.
    threads: usize,
    weight_type: String,
    version: String,
}

/// An entry.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: RatesKey,
    multiply_adds_per_second: f64,
    bytes_per_second: f64,
    /// Measurements of which these are the best.
    #[serde(default)]
    measurements: u32,
    /// The time of the last one, in seconds since 1970.
    #[serde(default)]
    measured: u64,
    /// Whether a run has taken as long as these rates predict.
    #[serde(default)]
    confirmed: bool,
}

/// A denoising step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeasuredStep {
    /// Its arithmetic.
    pub(crate) arithmetic: Arithmetic,
    /// How long it took.
    pub(crate) duration: Duration,
    /// Whether it also read files, which may take longer than the arithmetic.
    pub(crate) reads_files: bool,
}

/// The rates of `device` with weights of `weight_type`, from the cache in `user_dirs` if they are there.
///
/// # Errors
/// The device fails while it is measured.
pub(crate) fn of(device: &Device, weight_type: DType, user_dirs: &UserDirs) -> Result<Rates> {
    let key = RatesKey::new(device, weight_type);
    let folder = user_dirs.rates();
    cached(folder.as_deref(), key, now(), || {
        Ok(Rates::measure(device, weight_type)?)
    })
}

/// The rates of `device` with weights of `weight_type`, if they are in the cache in `user_dirs`.
pub(crate) fn known(device: &Device, weight_type: DType, user_dirs: &UserDirs) -> Option<Rates> {
    let key = RatesKey::new(device, weight_type);
    find(&key.path(&user_dirs.rates()?), &key).map(|entry| entry.rates())
}

/// Confirms or replaces the cached rates of `device` with weights of `weight_type`, if there are any, by the fastest
/// `step` of a run.
pub(crate) fn compare(device: &Device, weight_type: DType, user_dirs: &UserDirs, step: MeasuredStep) {
    if let Some(folder) = user_dirs.rates() {
        compare_in(&folder, RatesKey::new(device, weight_type), step);
    }
}

/// The entry of `key` in `folder`, or else the result of `measure`, which becomes the entry. An entry that no run has
/// confirmed is measured again if the last time is long before `now`.
fn cached(
    folder: Option<&Path>,
    key: RatesKey,
    now: u64,
    measure: impl FnOnce() -> Result<Rates>,
) -> Result<Rates> {
    let Some(folder) = folder else {
        return measure();
    };
    let known = find(&key.path(folder), &key);
    if let Some(known) = &known
        && !known.is_due(now)
    {
        return Ok(known.rates());
    }
    let rates = measure()?;
    let entry = Entry {
        multiply_adds_per_second: known
            .as_ref()
            .map_or(0.0, |known| known.multiply_adds_per_second)
            .max(rates.multiply_adds),
        bytes_per_second: known
            .as_ref()
            .map_or(0.0, |known| known.bytes_per_second)
            .max(rates.bytes),
        measurements: known.as_ref().map_or(0, |known| known.measurements) + 1,
        measured: now,
        confirmed: false,
        key,
    };
    keep(folder, &entry);
    Ok(entry.rates())
}

fn compare_in(folder: &Path, key: RatesKey, step: MeasuredStep) {
    let Some(known) = find(&key.path(folder), &key) else {
        return;
    };
    let predicted = step.arithmetic.duration(&known.rates());
    let ratio = step.duration.as_secs_f64() / predicted.as_secs_f64();
    let is_possible = ratio.is_finite() && ratio > 0.0;
    let says_slower = !step.reads_files && step.duration >= LONG_STEP;
    let factor = match ratio {
        _ if !is_possible => return,
        ratio if ratio < 1.0 / CONTRADICTION => ratio,
        ratio if ratio > CONTRADICTION && says_slower => ratio,
        ratio if ratio > CONTRADICTION => return,
        _ if known.confirmed => return,
        _ => 1.0,
    };
    keep(
        folder,
        &Entry {
            multiply_adds_per_second: known.multiply_adds_per_second / factor,
            bytes_per_second: known.bytes_per_second / factor,
            confirmed: true,
            ..known
        },
    );
}

/// The entry at `path`, if it exists, is undamaged, and was measured for `key`.
fn find(path: &Path, key: &RatesKey) -> Option<Entry> {
    if !path.exists() {
        return None;
    }
    let entry = match checksummed::read::<Entry>(path) {
        Ok(entry) => entry.description,
        Err(unreadable) => {
            tracing::debug!("`{}` is measured again: {unreadable}", path.display());
            return None;
        }
    };
    let is_possible = |rate: f64| rate.is_finite() && rate > 0.0;
    let rates = entry.rates();
    (entry.key == *key && is_possible(rates.multiply_adds) && is_possible(rates.bytes)).then_some(entry)
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Writes `entry`. If that is not possible, nothing is lost but time.
fn keep(folder: &Path, entry: &Entry) {
    let path = entry.key.path(folder);
    let written = checksummed::make_private_folder(folder).and_then(|()| {
        let temporary = path.with_extension(format!("{}.part", std::process::id()));
        checksummed::replace(&path, &temporary, Durability::Process, entry, &[])
    });
    if let Err(error) = written {
        tracing::debug!("cannot keep the rates in `{}`: {error}", path.display());
    }
}

impl Entry {
    fn rates(&self) -> Rates {
        Rates {
            multiply_adds: self.multiply_adds_per_second,
            bytes: self.bytes_per_second,
        }
    }

    /// Whether the device is to be measured again `now`. A clock that was set back counts as time that has passed.
    fn is_due(&self, now: u64) -> bool {
        let is_old = now.abs_diff(self.measured) >= BETWEEN.as_secs();
        is_old && !self.confirmed && self.measurements < MEASUREMENTS
    }
}

impl RatesKey {
    fn new(device: &Device, weight_type: DType) -> Self {
        let chip = match metal_gpu(device) {
            Some(gpu) => Some(gpu.name),
            None => gpu_name(device).or_else(machine::chip),
        };
        Self {
            device: device::name(device).to_owned(),
            chip,
            threads: rayon::current_num_threads(),
            weight_type: weight_type.as_str().to_owned(),
            version: VERSION.to_owned(),
        }
    }

    /// The path of the entry in `folder`.
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.digest()).with_extension(ENTRY)
    }

    /// The name of the entry. A new version of the program replaces the entry of the one before.
    fn digest(&self) -> String {
        let chip = self.chip.as_deref().unwrap_or_default();
        let text = format!("{}\n{chip}\n{}\n{}", self.device, self.threads, self.weight_type);
        checksummed::hexadecimal(&Sha256::digest(text))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Error;

    const RATES: Rates = Rates {
        multiply_adds: 3.5e10,
        bytes: 1.25e10,
    };

    /// A time.
    const NOW: u64 = 1_700_000_000;

    fn key() -> RatesKey {
        RatesKey::new(&Device::Cpu, DType::BF16)
    }

    fn not_measured() -> Result<Rates> {
        Err(Error::Interrupted)
    }

    #[test]
    fn rates_are_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Some(folder.path());
        assert_eq!(cached(folder, key(), NOW, || Ok(RATES)).unwrap(), RATES);
        assert_eq!(cached(folder, key(), NOW, not_measured).unwrap(), RATES);
        // Of another device, another number of threads, another type or another version they are not known.
        let others = [
            RatesKey {
                chip: Some("Apple M2 Max".to_owned()),
                ..key()
            },
            RatesKey {
                threads: key().threads + 1,
                ..key()
            },
            RatesKey {
                weight_type: "f32".to_owned(),
                ..key()
            },
            RatesKey {
                version: "0.0.0".to_owned(),
                ..key()
            },
        ];
        for other in others {
            assert!(cached(folder, other, NOW, not_measured).is_err());
        }
        // Without a folder nothing is kept.
        assert!(cached(None, key(), NOW, not_measured).is_err());
    }

    #[test]
    fn a_damaged_or_impossible_entry_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |rates| {
            let found = cached(Some(folder.path()), key(), NOW, || Ok(rates)).unwrap();
            let path = key().path(folder.path());
            (found, path)
        };
        let (_, path) = entry(RATES);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        let digit = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
        changed[digit] ^= 1;
        for damaged in [&bytes[..20], b"", b"{}", &changed] {
            fs::write(&path, damaged).unwrap();
            let faster = Rates {
                bytes: 2.0 * RATES.bytes,
                ..RATES
            };
            assert_eq!(entry(faster).0, faster);
            // What was measured again is kept.
            assert_eq!(
                cached(Some(folder.path()), key(), NOW, not_measured).unwrap(),
                faster
            );
        }
        for rate in [0.0, -1.0] {
            fs::remove_file(&path).unwrap();
            entry(Rates { bytes: rate, ..RATES });
            assert_eq!(entry(RATES).0, RATES);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_best_of_several_measurements_counts() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Some(folder.path());
        let of = |multiply_adds, bytes| Rates { multiply_adds, bytes };
        let at = |time, rates| cached(folder, key(), time, || Ok(rates)).unwrap();
        assert_eq!(at(NOW, of(1e9, 5e9)), of(1e9, 5e9));
        // Other programs are still at work.
        assert_eq!(at(NOW + 60, of(3e9, 3e9)), of(1e9, 5e9));
        assert_eq!(at(NOW + 600, of(3e9, 3e9)), of(3e9, 5e9));
        assert_eq!(at(NOW + 1200, of(2e9, 6e9)), of(3e9, 6e9));
        at(NOW + 1800, of(1e9, 1e9));
        assert_eq!(at(NOW + 2400, of(4e9, 1e9)), of(4e9, 6e9));
        let measured = |time| cached(folder, key(), time, not_measured);
        assert_eq!(measured(NOW + 3000).unwrap(), of(4e9, 6e9));
    }

    #[test]
    fn a_run_confirms_or_replaces_the_rates() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let step = |seconds, reads_files| MeasuredStep {
            arithmetic: Arithmetic {
                multiply_adds: RATES.multiply_adds as u64 * 10,
                moved: sd_memory::Bytes(1),
            },
            duration: Duration::from_secs_f64(seconds),
            reads_files,
        };
        let after = |seconds, reads_files| {
            cached(Some(folder), key(), NOW, || Ok(RATES)).unwrap();
            compare_in(folder, key(), step(seconds, reads_files));
            let entry = find(&key().path(folder), &key()).unwrap();
            fs::remove_file(key().path(folder)).unwrap();
            (entry.rates(), entry.confirmed)
        };
        // As predicted, about.
        for seconds in [10.0, 6.0, 19.0] {
            assert_eq!(after(seconds, false), (RATES, true));
        }
        let times = |factor: f64| Rates {
            multiply_adds: RATES.multiply_adds * factor,
            bytes: RATES.bytes * factor,
        };
        // The machine was busy when it was measured.
        assert_eq!(after(0.01, false), (times(1000.0), true));
        assert_eq!(after(0.1, true), (times(100.0), true));
        // The device is slower than measured, unless the step has waited for files.
        assert_eq!(after(40.0, false), (times(0.25), true));
        assert_eq!(after(40.0, true), (RATES, false));
        for impossible in [0.0, f64::from(u32::MAX) * 1e9] {
            after(impossible, true);
        }
        // Without an entry there is nothing to compare.
        compare_in(folder, key(), step(10.0, false));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn a_short_step_does_not_say_that_a_device_is_slow() {
        let folder = tempfile::tempdir().unwrap();
        cached(Some(folder.path()), key(), NOW, || Ok(RATES)).unwrap();
        let step = MeasuredStep {
            arithmetic: Arithmetic {
                multiply_adds: 1000,
                moved: sd_memory::Bytes(1000),
            },
            duration: Duration::from_millis(50),
            reads_files: false,
        };
        compare_in(folder.path(), key(), step);
        assert_eq!(find(&key().path(folder.path()), &key()).unwrap().rates(), RATES);
    }
}
