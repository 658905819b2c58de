//! A number of bytes, formatted and parsed in everyday units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// A number of bytes. Units are binary under their everyday names: 1 GB is 2^30 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The number in GB, 2^30 bytes each.
    pub fn gigabytes(self) -> f64 {
        self.0 as f64 / GB as f64
    }

    /// The number as an option of the command line takes it, such as `1.3GB` or `412MB`. It is rounded up, so that a
    /// budget of it is enough for this many bytes.
    pub fn as_budget(self) -> String {
        if self.0 <= GB - MB {
            return format!("{}MB", self.0.div_ceil(MB));
        }
        // In exact tenths: a rounded quotient could be too small.
        let tenths = (u128::from(self.0) * 10).div_ceil(u128::from(GB));
        format!("{}.{}GB", tenths / 10, tenths % 10)
    }

    /// The difference, or 0 if `other` is larger.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..KB => write!(formatter, "{} bytes", self.0),
            KB..MB => write!(formatter, "{:.1}KB", self.0 as f64 / KB as f64),
            MB..GB => write!(formatter, "{:.1}MB", self.0 as f64 / MB as f64),
            GB.. => write!(formatter, "{:.1}GB", self.gigabytes()),
        }
    }
}

/// Text that cannot be parsed as a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write it like 8GB, 512MB or 1.5G")]
pub struct BadBytes(String);

impl FromStr for Bytes {
    type Err = BadBytes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadBytes(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|character: char| !character.is_ascii_digit() && character != '.');
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let factor = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "K" | "KB" | "KIB" => KB,
            "M" | "MB" | "MIB" => MB,
            "G" | "GB" | "GIB" => GB,
            "T" | "TB" | "TIB" => GB << 10,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let bytes = number * factor as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 {
            Ok(Self(bytes as u64))
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_in_the_largest_unit_that_fits() {
        assert_eq!(Bytes(17).to_string(), "17 bytes");
        assert_eq!(Bytes(1536).to_string(), "1.5KB");
        assert_eq!(Bytes(400 * MB).to_string(), "400.0MB");
        assert_eq!(Bytes(5 * GB / 2).to_string(), "2.5GB");
    }

    #[test]
    fn a_budget_is_rounded_up() {
        for (bytes, text) in [
            (0, "0MB"),
            (1, "1MB"),
            (412 * MB, "412MB"),
            (412 * MB + 1, "413MB"),
            (GB, "1.0GB"),
            (GB + 1, "1.1GB"),
            (13 * GB / 10, "1.3GB"),
            (8 * GB, "8.0GB"),
        ] {
            let budget = Bytes(bytes).as_budget();
            assert_eq!(budget, text, "{bytes}");
            assert!(
                budget.parse::<Bytes>().is_ok_and(|budget| budget.0 >= bytes),
                "{budget}"
            );
        }
    }

    #[test]
    fn is_read_as_people_write_it() {
        for (text, bytes) in [
            ("8GB", 8 * GB),
            ("1.5G", 3 * GB / 2),
            (" 512 mb ", 512 * MB),
            ("42", 42),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "GB", "8XB", "-1GB", "1e400GB", "1.2.3GB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
