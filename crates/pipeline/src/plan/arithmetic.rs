//! The arithmetic of a stage, and how long a device of known rates takes for it.

use std::time::Duration;

use sd_memory::Bytes;
use sd_models::{WeightBytes, Work};
use sd_ops::Rates;
use serde::Serialize;

/// The arithmetic of a stage, over all of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Arithmetic {
    /// Multiply-adds of matrix products, convolutions and attention.
    pub multiply_adds: u64,
    /// Bytes of activations and weights that operations read and write, in the memory of the device.
    pub moved: Bytes,
}

impl Arithmetic {
    /// The arithmetic of `work` with activations of `element` bytes, which reads `weights` once.
    pub(crate) fn of(work: Work, element: usize, weights: &WeightBytes) -> Self {
        let weights = weights.always + weights.blocks.iter().sum::<u64>();
        let activations = work.values.saturating_mul(element as u64);
        Self {
            multiply_adds: work.multiply_adds,
            moved: Bytes(activations.saturating_add(weights)),
        }
    }

    /// The same `count` times.
    #[must_use]
    pub(crate) fn times(self, count: usize) -> Self {
        Self {
            multiply_adds: self.multiply_adds.saturating_mul(count as u64),
            moved: Bytes(self.moved.0.saturating_mul(count as u64)),
        }
    }

    /// A part of it, of `count` equal ones.
    #[must_use]
    pub(crate) fn divided_by(self, count: usize) -> Self {
        let count = count.max(1) as u64;
        Self {
            multiply_adds: self.multiply_adds / count,
            moved: Bytes(self.moved.0 / count),
        }
    }

    /// How long a device of `rates` takes: arithmetic and traffic overlap, so that the slower one counts.
    pub(crate) fn duration(self, rates: &Rates) -> Duration {
        let computing = self.multiply_adds as f64 / rates.multiply_adds;
        let moving = self.moved.0 as f64 / rates.bytes;
        // More than a duration can hold is written as the longest.
        Duration::try_from_secs_f64(computing.max(moving)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        multiply_adds: 1e9,
        bytes: 1e8,
    };

    #[test]
    fn the_slower_of_arithmetic_and_traffic_counts() {
        let work = Work {
            multiply_adds: 3_000_000_000,
            values: 10_000_000,
        };
        let weights = WeightBytes {
            blocks: vec![20_000_000, 30_000_000],
            always: 10_000_000,
        };
        let arithmetic = Arithmetic::of(work, 4, &weights);
        assert_eq!(arithmetic.moved, Bytes(100_000_000));
        assert_eq!(arithmetic.duration(&RATES), Duration::from_secs(3));
        let of_weights = Arithmetic {
            multiply_adds: 500_000_000,
            ..arithmetic
        };
        assert_eq!(of_weights.times(4).duration(&RATES), Duration::from_secs(4));
    }

    #[test]
    fn no_rate_makes_a_duration_impossible() {
        let all = Arithmetic {
            multiply_adds: u64::MAX,
            moved: Bytes(u64::MAX),
        };
        for rate in [1e-300, 0.0, f64::NAN, 1e300] {
            let rates = Rates {
                multiply_adds: rate,
                bytes: rate,
            };
            all.times(7).duration(&rates);
        }
    }
}
