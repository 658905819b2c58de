//! `timestep_spacing` of diffusers' configurations: which training timesteps the steps of a run use.

use crate::error::Refusal;
use crate::levels::sigmas::linspace;

/// `timestep_spacing`: how the timesteps of a run are chosen from the training timesteps. Lin et al., "Common
/// Diffusion Noise Schedules and Sample Steps are Flawed", 2023, table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestepSpacing {
    /// Evenly spaced from the first to the last.
    Linspace,
    /// Multiples of a whole number, from the first on.
    Leading,
    /// Evenly spaced, beginning at the last.
    Trailing,
}

/// How a scheduler class of diffusers rounds the timesteps of a spacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Fractional timesteps are kept.
    Between,
    /// Whole timesteps.
    Whole,
    /// Whole timesteps, spaced as if there were one more step, at the original sample.
    WholeWithEnd,
}

impl TimestepSpacing {
    /// The spacing with the name in a configuration.
    pub(crate) fn named(name: &str) -> Result<Self, Refusal> {
        match name {
            "linspace" => Ok(Self::Linspace),
            "leading" => Ok(Self::Leading),
            "trailing" => Ok(Self::Trailing),
            other => Err(Refusal::setting("timestep_spacing", other)),
        }
    }

    /// `steps` timesteps below `end`, from high to low noise. `train` is the number of training timesteps.
    pub(crate) fn timesteps(
        self,
        rounding: Rounding,
        (end, train): (usize, usize),
        steps: usize,
        offset: usize,
    ) -> Vec<f64> {
        let points = steps + usize::from(rounding == Rounding::WholeWithEnd);
        let last = end.saturating_sub(1) as f64;
        match self {
            Self::Linspace => {
                let spread = linspace(0.0, last, points).into_iter().rev().take(steps);
                match rounding {
                    Rounding::Between => spread.collect(),
                    Rounding::Whole | Rounding::WholeWithEnd => spread.map(f64::round_ties_even).collect(),
                }
            }
            Self::Leading => {
                let ratio = end / points;
                let spread = (0..points).rev().take(steps);
                spread
                    .map(|point| (point * ratio) as f64 + offset as f64)
                    .collect()
            }
            Self::Trailing => {
                let ratio = train as f64 / steps as f64;
                let end = end as f64;
                // numpy's `arange` computes its step as the difference of its first two numbers.
                let step = (end - ratio) - end;
                let spread = (0..steps).map(|index| (end + index as f64 * step).round_ties_even() - 1.0);
                spread.filter(|&timestep| timestep >= 0.0).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spacing_gives_as_many_timesteps_as_steps() {
        for spacing in [
            TimestepSpacing::Linspace,
            TimestepSpacing::Leading,
            TimestepSpacing::Trailing,
        ] {
            for rounding in [Rounding::Between, Rounding::Whole, Rounding::WholeWithEnd] {
                for steps in 1..=1000 {
                    let timesteps = spacing.timesteps(rounding, (1000, 1000), steps, 1);
                    assert_eq!(timesteps.len(), steps, "{spacing:?} {rounding:?}");
                    assert!(timesteps.windows(2).all(|pair| pair[0] >= pair[1]));
                }
            }
        }
    }
}
