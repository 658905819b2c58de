//! Which noise levels the steps pass through.

use crate::beta_distribution::BetaDistribution;
use crate::error::Refusal;
use crate::schedule_kind::ScheduleKind;

/// How steps are spread over the training timesteps: Lin et al., "Common Diffusion Noise Schedules and Sample
/// Steps are Flawed", 2023, table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// From the first to the last.
    Linspace,
    /// By a whole number, from the first on.
    Leading,
    /// From the last on.
    Trailing,
}

/// What diffusers' schedulers make of a spacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Timesteps between those of the training are allowed.
    Between,
    /// Whole timesteps.
    Whole,
    /// Whole timesteps, as if there were one step more, whose timestep is the picture itself.
    WholeWithEnd,
}

impl Spacing {
    /// The spacing that a configuration names.
    pub(crate) fn named(name: &str) -> Result<Self, Refusal> {
        match name {
            "linspace" => Ok(Self::Linspace),
            "leading" => Ok(Self::Leading),
            "trailing" => Ok(Self::Trailing),
            other => Err(Refusal::Setting {
                name: "timestep_spacing",
                value: other.to_owned(),
            }),
        }
    }

    /// `steps` timesteps below `end`, from the noise to the picture, of `train` in all.
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
                let spread = evenly(0.0, last, points).into_iter().rev().take(steps);
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
                // As numpy's `arange`, whose step is the difference of its first two numbers.
                let step = (end - ratio) - end;
                let spread = (0..steps).map(|index| (end + index as f64 * step).round_ties_even() - 1.0);
                spread.filter(|&timestep| timestep >= 0.0).collect()
            }
        }
    }
}

/// `count` noise levels from `most` down to `least` along the curve of `schedule`; `None` where it has none
/// and follows the timesteps.
pub(crate) fn curve(schedule: ScheduleKind, least: f64, most: f64, count: usize) -> Option<Vec<f64>> {
    const RHO: f64 = 7.0;
    let shares = evenly(0.0, 1.0, count).into_iter();
    Some(match schedule {
        ScheduleKind::Karras => karras(RHO, least, most, count),
        ScheduleKind::Exponential => {
            let logarithms = evenly(most.ln(), least.ln(), count).into_iter();
            logarithms.map(f64::exp).collect()
        }
        ScheduleKind::Beta => {
            let distribution = BetaDistribution::new(0.6);
            shares
                .map(|share| least + distribution.quantile(1.0 - share) * (most - least))
                .collect()
        }
        ScheduleKind::Automatic | ScheduleKind::Normal | ScheduleKind::SgmUniform => return None,
    })
}

/// The curve of Karras et al., with its exponent.
pub(crate) fn karras(rho: f64, least: f64, most: f64, count: usize) -> Vec<f64> {
    let (least, most) = (least.powf(1.0 / rho), most.powf(1.0 / rho));
    let shares = evenly(0.0, 1.0, count).into_iter();
    shares
        .map(|share| (most + share * (least - most)).powf(rho))
        .collect()
}

/// `count` numbers from `start` to `end`.
pub(crate) fn evenly(start: f64, end: f64, count: usize) -> Vec<f64> {
    if count < 2 {
        return vec![start; count];
    }
    let step = (end - start) / (count - 1) as f64;
    let mut numbers: Vec<f64> = (0..count).map(|index| start + index as f64 * step).collect();
    numbers[count - 1] = end;
    numbers
}

/// The level at `timestep`, which may lie between two of `table`'s.
pub(crate) fn at_timestep(timestep: f64, table: &[f32]) -> f64 {
    let last = table.len() - 1;
    let below = (timestep.max(0.0) as usize).min(last);
    let level = |index: usize| f64::from(table[index.min(last)]);
    level(below) + (level(below + 1) - level(below)) * (timestep.clamp(0.0, last as f64) - below as f64)
}

/// The timestep, whole or not, at which `sigma` lies in the table of the rising `logarithms`.
pub(crate) fn to_timestep(sigma: f64, logarithms: &[f32]) -> f64 {
    let logarithm = sigma.max(1e-10).ln();
    let reached = logarithms
        .iter()
        .rposition(|&level| f64::from(level) <= logarithm);
    let below = reached.unwrap_or(0).min(logarithms.len() - 2);
    let (low, high) = (logarithms[below], logarithms[below + 1]);
    let share = ((f64::from(low) - logarithm) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - share) * below as f64 + share * (below + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spacing_gives_as_many_timesteps_as_steps() {
        for spacing in [Spacing::Linspace, Spacing::Leading, Spacing::Trailing] {
            for rounding in [Rounding::Between, Rounding::Whole, Rounding::WholeWithEnd] {
                for steps in 1..=1000 {
                    let timesteps = spacing.timesteps(rounding, (1000, 1000), steps, 1);
                    assert_eq!(timesteps.len(), steps, "{spacing:?} {rounding:?}");
                    assert!(timesteps.windows(2).all(|pair| pair[0] >= pair[1]));
                }
            }
        }
    }

    #[test]
    fn levels_and_timesteps_are_each_others_inverse() {
        let table = [0.1_f32, 0.2, 0.5, 1.5, 9.0];
        let logarithms: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
        for (timestep, &sigma) in table.iter().enumerate() {
            assert!((to_timestep(f64::from(sigma), &logarithms) - timestep as f64).abs() < 1e-5);
            assert_eq!(at_timestep(timestep as f64, &table), f64::from(sigma));
        }
        assert_eq!(to_timestep(0.0, &logarithms), 0.0);
        assert_eq!(to_timestep(100.0, &logarithms), 4.0);
        assert_eq!(at_timestep(7.5, &table), 9.0);
        assert!((at_timestep(2.5, &table) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn curves_go_from_the_most_noise_to_the_least() {
        for schedule in [
            ScheduleKind::Karras,
            ScheduleKind::Exponential,
            ScheduleKind::Beta,
        ] {
            let levels = curve(schedule, 0.03, 14.6, 9).unwrap();
            assert!(
                (levels[0] - 14.6).abs() < 1e-9 && (levels[8] - 0.03).abs() < 1e-9,
                "{levels:?}"
            );
            assert!(levels.windows(2).all(|pair| pair[0] > pair[1]));
            assert_eq!(curve(schedule, 0.03, 14.6, 1).unwrap().len(), 1);
        }
        assert_eq!(curve(ScheduleKind::Normal, 0.03, 14.6, 9), None);
    }
}
