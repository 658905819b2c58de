//! The rates of this machine's devices: measured once, then read from the user's cache.
//!
//! An entry holds what it was measured for: the device, its threads, the type of weights and the version of the
//! program. One that is damaged or was measured for anything else counts as missing.

use std::path::Path;

use candle_core::{DType, Device};
use sd_ops::Rates;
use sd_weights::{gpu_name, metal_gpu};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checksummed::{self, Durability};
use crate::user_dirs::UserDirs;
use crate::{Result, VERSION, device, machine};

const ENTRY: &str = "safetensors";

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
}

/// The rates of `device` with weights of `weight_type`, from the cache in `user_dirs` if they are there.
///
/// # Errors
/// The device fails while it is measured.
pub(crate) fn of(device: &Device, weight_type: DType, user_dirs: &UserDirs) -> Result<Rates> {
    let key = RatesKey::new(device, weight_type);
    let folder = user_dirs.rates();
    cached(folder.as_deref(), key, || {
        Ok(Rates::measure(device, weight_type)?)
    })
}

/// The rates of `device` with weights of `weight_type`, if they are in the cache in `user_dirs`.
pub(crate) fn known(device: &Device, weight_type: DType, user_dirs: &UserDirs) -> Option<Rates> {
    let key = RatesKey::new(device, weight_type);
    let path = user_dirs.rates()?.join(key.digest()).with_extension(ENTRY);
    find(&path, &key)
}

/// The entry of `key` in `folder`, or else the result of `measure`, which becomes the entry.
fn cached(folder: Option<&Path>, key: RatesKey, measure: impl FnOnce() -> Result<Rates>) -> Result<Rates> {
    let Some(folder) = folder else {
        return measure();
    };
    let path = folder.join(key.digest()).with_extension(ENTRY);
    if let Some(found) = find(&path, &key) {
        return Ok(found);
    }
    let rates = measure()?;
    let entry = Entry {
        key,
        multiply_adds_per_second: rates.multiply_adds,
        bytes_per_second: rates.bytes,
    };
    if let Err(error) = keep(folder, &path, &entry) {
        tracing::debug!("cannot keep the rates in `{}`: {error}", path.display());
    }
    Ok(rates)
}

/// The rates at `path`, if the entry exists, is undamaged, and was measured for `key`.
fn find(path: &Path, key: &RatesKey) -> Option<Rates> {
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
    let rates = Rates {
        multiply_adds: entry.multiply_adds_per_second,
        bytes: entry.bytes_per_second,
    };
    let is_possible = |rate: f64| rate.is_finite() && rate > 0.0;
    (entry.key == *key && is_possible(rates.multiply_adds) && is_possible(rates.bytes)).then_some(rates)
}

fn keep(folder: &Path, path: &Path, entry: &Entry) -> std::io::Result<()> {
    checksummed::make_private_folder(folder)?;
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    checksummed::replace(path, &temporary, Durability::Process, entry, &[])
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
        assert_eq!(cached(folder, key(), || Ok(RATES)).unwrap(), RATES);
        assert_eq!(cached(folder, key(), not_measured).unwrap(), RATES);
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
            assert!(cached(folder, other, not_measured).is_err());
        }
        // Without a folder nothing is kept.
        assert!(cached(None, key(), not_measured).is_err());
    }

    #[test]
    fn a_damaged_or_impossible_entry_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |rates| {
            let found = cached(Some(folder.path()), key(), || Ok(rates)).unwrap();
            let path = folder.path().join(key().digest()).with_extension(ENTRY);
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
            assert_eq!(cached(Some(folder.path()), key(), not_measured).unwrap(), faster);
        }
        for rate in [0.0, -1.0] {
            fs::remove_file(&path).unwrap();
            entry(Rates { bytes: rate, ..RATES });
            assert_eq!(entry(RATES).0, RATES);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
