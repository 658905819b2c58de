//! Noise levels (sigmas) along the Karras, exponential and beta schedules, and conversion between levels and
//! timesteps.

use crate::levels::beta_distribution::BetaDistribution;
use crate::schedule_kind::ScheduleKind;

/// `count` noise levels from `sigma_max` down to `sigma_min` along the curve of `schedule`; `None` if the
/// schedule follows timesteps.
pub(crate) fn curve(
    schedule: ScheduleKind,
    sigma_min: f64,
    sigma_max: f64,
    count: usize,
) -> Option<Vec<f64>> {
    const RHO: f64 = 7.0;
    let shares = linspace(0.0, 1.0, count).into_iter();
    Some(match schedule {
        ScheduleKind::Karras => karras(RHO, sigma_min, sigma_max, count),
        ScheduleKind::Exponential => {
            let logarithms = linspace(sigma_max.ln(), sigma_min.ln(), count).into_iter();
            logarithms.map(f64::exp).collect()
        }
        ScheduleKind::Beta => {
            let distribution = BetaDistribution::new(0.6);
            shares
                .map(|share| sigma_min + distribution.quantile(1.0 - share) * (sigma_max - sigma_min))
                .collect()
        }
        ScheduleKind::Automatic | ScheduleKind::Normal | ScheduleKind::SgmUniform => return None,
    })
}

/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 5.
pub(crate) fn karras(rho: f64, sigma_min: f64, sigma_max: f64, count: usize) -> Vec<f64> {
    let (root_min, root_max) = (sigma_min.powf(1.0 / rho), sigma_max.powf(1.0 / rho));
    let shares = linspace(0.0, 1.0, count).into_iter();
    shares
        .map(|share| (root_max + share * (root_min - root_max)).powf(rho))
        .collect()
}

/// `count` evenly spaced numbers from `start` to `end`, computed as numpy's `linspace` does.
pub(crate) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    if count < 2 {
        return vec![start; count];
    }
    let step = (end - start) / (count - 1) as f64;
    let mut numbers: Vec<f64> = (0..count).map(|index| start + index as f64 * step).collect();
    numbers[count - 1] = end;
    numbers
}

/// The noise level at `timestep`, interpolated in `table`, the levels of the training timesteps.
pub(crate) fn at_timestep(timestep: f64, table: &[f32]) -> f64 {
    let last = table.len() - 1;
    let below = (timestep.max(0.0) as usize).min(last);
    let level = |index: usize| f64::from(table[index.min(last)]);
    level(below) + (level(below + 1) - level(below)) * (timestep.clamp(0.0, last as f64) - below as f64)
}

/// The fractional timestep of `sigma`, interpolated in the rising `logarithms` of the training levels:
/// `_sigma_to_t` in diffusers.
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
