//! How much of a picture is left at each training timestep.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models", 2020, and Nichol and Dhariwal, "Improved Denoising
//! Diffusion Probabilistic Models", 2021, equation 17; a terminal signal-to-noise ratio of zero is that of
//! Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, algorithm 1. In 32 bits,
//! as diffusers computes it: near the picture, where 1 minus such a number is taken, the last bits matter.

use std::f64::consts::FRAC_PI_2;

use crate::config::SchedulerConfig;
use crate::error::Refusal;
use crate::kind::SamplerKind;
use crate::settings;

/// No model divides noise into more.
const MOST_TIMESTEPS: usize = 1_000_000;

/// The variances of the picture at every training timestep.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NoiseTable {
    /// One a timestep, falling; but see where the last one is raised.
    pub(crate) alphas_cumprod: Vec<f32>,
}

impl NoiseTable {
    /// The table of `config`, with what diffusers' class of `kind` takes where nothing is said.
    pub(crate) fn new(config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        let narrow = matches!(
            kind,
            SamplerKind::Heun
                | SamplerKind::Dpm2
                | SamplerKind::Dpm2Ancestral
                | SamplerKind::DpmPlusPlusSde
                | SamplerKind::Lcm
                | SamplerKind::Tcd
        );
        let (usual_start, usual_end) = if narrow { (0.00085, 0.012) } else { (0.0001, 0.02) };
        let usual_schedule = if matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd) {
            "scaled_linear"
        } else {
            "linear"
        };
        let start = config.beta_start.unwrap_or(usual_start);
        let end = config.beta_end.unwrap_or(usual_end);
        let timesteps = config.train_timesteps();
        if timesteps > MOST_TIMESTEPS {
            return Err(Refusal::Setting {
                name: "num_train_timesteps",
                value: timesteps.to_string(),
            });
        }

        let mut betas = match (
            &config.trained_betas,
            config.beta_schedule.as_deref().unwrap_or(usual_schedule),
        ) {
            (Some(betas), _) => betas.clone(),
            (None, "linear") => evenly(start as f32, end as f32, timesteps),
            (None, "scaled_linear") => {
                let roots = evenly(start.sqrt() as f32, end.sqrt() as f32, timesteps);
                roots.iter().map(|root| root * root).collect()
            }
            (None, "squaredcos_cap_v2") => cosine(timesteps),
            (None, other) => {
                return Err(Refusal::Setting {
                    name: "beta_schedule",
                    value: other.to_owned(),
                });
            }
        };
        let rescaled = config.rescale_betas_zero_snr.unwrap_or(false)
            // The other classes of diffusers do not know the setting and pass over it.
            && settings::has(kind.diffusers_class(), "rescale_betas_zero_snr");
        if rescaled {
            betas = without_terminal_signal(&betas);
        }
        let mut alphas_cumprod = cumulative(betas.iter().map(|beta| 1.0 - beta));
        let falls = alphas_cumprod.windows(2).all(|pair| pair[1] < pair[0]);
        let within = alphas_cumprod.iter().all(|alpha| (0.0..1.0).contains(alpha));
        if alphas_cumprod.len() < 2 || alphas_cumprod.len() != timesteps || !falls || !within {
            return Err(Refusal::Setting {
                name: "betas",
                value: format!(
                    "{} numbers from {start} to {end} for {timesteps} timesteps",
                    betas.len()
                ),
            });
        }
        if let Some(last) = alphas_cumprod.last_mut()
            && rescaled
            && kind.bends()
        {
            // Sigmas must stay finite, though this may be more than is left one timestep earlier.
            *last = 2.0_f32.powi(-24);
        }
        Ok(Self { alphas_cumprod })
    }

    /// How many timesteps there are.
    pub(crate) fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The variance that is left at `timestep`; `before` where it lies before the first.
    pub(crate) fn alpha(&self, timestep: i64, before: f32) -> f32 {
        match usize::try_from(timestep) {
            Ok(timestep) => self.alphas_cumprod[timestep.min(self.len() - 1)],
            Err(_) => before,
        }
    }

    /// The noise levels at every timestep: standard deviation of the noise over that of the picture. Rising.
    pub(crate) fn sigmas(&self) -> Vec<f32> {
        let levels = self.alphas_cumprod.iter();
        levels.map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
    }
}

/// `count` numbers from `start` to `end`, counted from the nearer end, as torch's `linspace` does.
fn evenly(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count.max(2) - 1) as f32;
    let number = |index: usize| {
        if index < count / 2 {
            start + step * index as f32
        } else {
            end - step * (count - 1 - index) as f32
        }
    };
    (0..count).map(number).collect()
}

fn cosine(count: usize) -> Vec<f32> {
    const OFFSET: f64 = 0.008;
    const MOST: f64 = 0.999;
    let left = |index: usize| {
        let time = index as f64 / count as f64;
        ((time + OFFSET) / (1.0 + OFFSET) * FRAC_PI_2).cos().powi(2)
    };
    let beta = |index: usize| (1.0 - left(index + 1) / left(index)).min(MOST) as f32;
    (0..count).map(beta).collect()
}

/// Products of all numbers so far, each rounded from 64 bits.
fn cumulative(numbers: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0_f64;
    numbers
        .map(|number| {
            product *= f64::from(number);
            product as f32
        })
        .collect()
}

/// Betas that leave nothing of the picture at the last timestep.
fn without_terminal_signal(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative(betas.iter().map(|beta| 1.0 - beta))
        .iter()
        .map(|alpha| alpha.sqrt())
        .collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let stretch = first / (first - last);
    let left: Vec<f32> = roots
        .iter()
        .map(|root| ((root - last) * stretch).powi(2))
        .collect();
    let mut before = 1.0;
    left.iter()
        .map(|&alpha| {
            let beta = 1.0 - alpha / before;
            before = alpha;
            beta
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_are_none_are_refused() {
        let refused = |text: &str| {
            let config = SchedulerConfig::parse(text).unwrap();
            NoiseTable::new(&config, SamplerKind::Euler)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(r#"{"beta_schedule": "sigmoid"}"#).contains("`beta_schedule` to `sigmoid`"));
        assert!(refused(r#"{"beta_start": 2.0}"#).contains('2'));
        assert!(refused(r#"{"beta_start": -1.0}"#).contains("-1"));
        assert!(refused(r#"{"num_train_timesteps": 0}"#).contains('0'));
        assert!(refused(r#"{"num_train_timesteps": 1000000000000}"#).contains("num_train_timesteps"));
        assert!(refused(r#"{"trained_betas": [0.1, 0.2]}"#).contains("2 numbers"));
    }

    #[test]
    fn the_last_timestep_can_be_pure_noise() {
        let config = SchedulerConfig {
            rescale_betas_zero_snr: Some(true),
            ..Default::default()
        };
        let table = |kind| NoiseTable::new(&config, kind).unwrap().alphas_cumprod;
        assert_eq!(table(SamplerKind::Ddim).last(), Some(&0.0));
        assert_eq!(table(SamplerKind::Euler).last(), Some(&2.0_f32.powi(-24)));
        assert!(table(SamplerKind::Lms).last() > Some(&1e-6));
    }
}
