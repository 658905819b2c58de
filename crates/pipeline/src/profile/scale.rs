//! Scales from values to coordinates, and the ticks of an axis.

/// A linear scale from `0..=most` to the coordinates `from..=to`, which may run backwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    pub(super) fn new(most: f64, from: f64, to: f64) -> Self {
        // A scale needs an extent even if all values are zero.
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        Self { most, from, to }
    }

    /// The largest value.
    pub(super) fn most(self) -> f64 {
        self.most
    }

    /// The coordinate of `value`, clamped to the plot area.
    pub(super) fn coordinate(self, value: f64) -> f64 {
        let share = (value / self.most).clamp(0.0, 1.0);
        let coordinate = self.from + share * (self.to - self.from);
        if coordinate.is_finite() {
            coordinate
        } else {
            self.from
        }
    }

    /// About `count` ticks from 0 on, in steps of 1, 2 or 5 times a power of ten of `unit`.
    pub(super) fn ticks(self, count: usize, unit: f64) -> Vec<f64> {
        let rough = self.most / unit / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|&step| step >= rough);
        let step = step.unwrap_or(10.0 * power) * unit;
        (0..=2 * count)
            .map(|index| index as f64 * step)
            .take_while(|&value| value <= self.most * (1.0 + 1e-9))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_stay_inside_the_plot() {
        let scale = Scale::new(10.0, 300.0, 20.0);
        assert_eq!(
            [0.0, 5.0, 10.0].map(|value| scale.coordinate(value)),
            [300.0, 160.0, 20.0]
        );
        for value in [-1.0, 11.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert!((20.0..=300.0).contains(&scale.coordinate(value)), "{value}");
        }
        assert_eq!(Scale::new(0.0, 0.0, 1.0).coordinate(0.0), 0.0);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::new(9.3, 0.0, 1.0).ticks(5, 1.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Scale::new(1000.0, 0.0, 1.0).ticks(4, 1.0), [0.0, 500.0, 1000.0]);
        let megabyte = f64::from(1 << 20);
        let ticks = Scale::new(230.0 * megabyte, 0.0, 1.0).ticks(5, megabyte);
        assert_eq!(
            ticks,
            [0.0, 50.0, 100.0, 150.0, 200.0].map(|megabytes| megabytes * megabyte)
        );
        for most in [1e-9, 0.3, 7.0, 1e12] {
            let ticks = Scale::new(most, 0.0, 1.0).ticks(6, 1.0);
            assert!((3..=13).contains(&ticks.len()), "{most}: {ticks:?}");
        }
    }
}
