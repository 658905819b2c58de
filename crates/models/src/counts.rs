//! Bounds of the counts in configurations. A file can hold any number: a network of 2^63 layers must be
//! refused before anything is multiplied or allocated.

use crate::{Error, Result};

/// The most features, channels, heads or positions of a plausible network.
pub(crate) const MOST_FEATURES: usize = 1 << 16;
/// The most layers.
pub(crate) const MOST_LAYERS: usize = 1 << 8;
/// The largest vocabulary.
pub(crate) const MOST_TOKENS: usize = 1 << 20;

/// Refuses the first of the named `counts` that is 0 or more than `most`.
///
/// # Errors
/// A count is out of bounds; the error names it.
pub(crate) fn check(network: &'static str, most: usize, counts: &[(&str, usize)]) -> Result<()> {
    match counts.iter().find(|(_, count)| !(1..=most).contains(count)) {
        None => Ok(()),
        Some((name, count)) => Err(Error::Config {
            network,
            reason: format!("{name} is {count}, and can be 1 to {most}"),
        }),
    }
}

/// Refuses the first of the named `numbers` that is not finite or negative.
///
/// # Errors
/// A count is out of bounds; the error names it.
pub(crate) fn check_finite(network: &'static str, numbers: &[(&str, f64)]) -> Result<()> {
    match numbers
        .iter()
        .find(|(_, number)| !number.is_finite() || *number < 0.0)
    {
        None => Ok(()),
        Some((name, number)) => Err(Error::Config {
            network,
            reason: format!("{name} is {number}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_count_that_cannot_be_is_named() {
        let check = |counts: &[(&str, usize)]| check("network", 8, counts).map_err(|error| error.to_string());
        assert_eq!(check(&[("a", 1), ("b", 8)]), Ok(()));
        for (count, found) in [
            (0, "b is 0"),
            (9, "b is 9"),
            (usize::MAX, "b is 18446744073709551615"),
        ] {
            assert!(check(&[("a", 1), ("b", count)]).unwrap_err().contains(found));
        }
        assert!(check_finite("network", &[("x", f64::NAN)]).is_err());
    }
}
