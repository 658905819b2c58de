//! The noise schedule of a model's training: `betas` and `alphas_cumprod` for each training timestep.
//!
//! Ho et al., "Denoising Diffusion Probabilistic Models", 2020, and Nichol and Dhariwal, "Improved Denoising
//! Diffusion Probabilistic Models", 2021, equation 17. Zero terminal SNR is that of Lin et al., "Common
//! Diffusion Noise Schedules and Sample Steps are Flawed", 2023, algorithm 1. All is computed in 32 bits, as
//! in diffusers: at low noise, where 1 minus such a number is taken, the last bits matter.

use std::f64::consts::FRAC_PI_2;

use crate::config::SchedulerConfig;
use crate::config::known_settings;
use crate::error::Refusal;
use crate::sampler_kind::SamplerKind;

/// An upper limit for `num_train_timesteps`.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

/// `alphas_cumprod` of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrainingSchedule {
    /// One for each training timestep, falling; with zero terminal SNR the last one may be raised.
    pub(crate) alphas_cumprod: Vec<f32>,
}

impl TrainingSchedule {
    /// The schedule of `config`, with the defaults of the scheduler class of `kind`.
    pub(crate) fn new(config: &SchedulerConfig, kind: SamplerKind) -> Result<Self, Refusal> {
        let narrow_betas = matches!(
            kind,
            SamplerKind::Heun
                | SamplerKind::Dpm2
                | SamplerKind::Dpm2Ancestral
                | SamplerKind::DpmPlusPlusSde
                | SamplerKind::Lcm
                | SamplerKind::Tcd
        );
        let (default_start, default_end) = if narrow_betas {
            (0.00085, 0.012)
        } else {
            (0.0001, 0.02)
        };
        let default_schedule = if matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd) {
            "scaled_linear"
        } else {
            "linear"
        };
        let start = config.beta_start.unwrap_or(default_start);
        let end = config.beta_end.unwrap_or(default_end);
        let timesteps = config.train_timesteps();
        if timesteps > MAX_TRAIN_TIMESTEPS {
            return Err(Refusal::setting("num_train_timesteps", timesteps));
        }

        let mut betas = match (
            &config.trained_betas,
            config.beta_schedule.as_deref().unwrap_or(default_schedule),
        ) {
            (Some(betas), _) => betas.clone(),
            (None, "linear") => torch_linspace(start as f32, end as f32, timesteps),
            (None, "scaled_linear") => {
                let roots = torch_linspace(start.sqrt() as f32, end.sqrt() as f32, timesteps);
                roots.iter().map(|root| root * root).collect()
            }
            (None, "squaredcos_cap_v2") => cosine_betas(timesteps),
            (None, other) => {
                return Err(Refusal::setting("beta_schedule", other));
            }
        };
        let rescaled = config.rescale_betas_zero_snr.unwrap_or(false)
            // Classes without the setting ignore it.
            && known_settings::has(kind.diffusers_class(), "rescale_betas_zero_snr");
        if rescaled {
            betas = rescale_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
        let falls = alphas_cumprod.windows(2).all(|pair| pair[1] < pair[0]);
        let within = alphas_cumprod.iter().all(|alpha| (0.0..1.0).contains(alpha));
        if alphas_cumprod.len() < 2 || alphas_cumprod.len() != timesteps || !falls || !within {
            let betas = betas.len();
            return Err(Refusal::setting(
                "betas",
                format!("{betas} numbers from {start} to {end} for {timesteps} timesteps"),
            ));
        }
        if let Some(last) = alphas_cumprod.last_mut()
            && rescaled
            && kind.supports_sigma_schedules()
        {
            // Keeps sigmas finite, as in diffusers, though the value may exceed that of the timestep before.
            *last = 2.0_f32.powi(-24);
        }
        Ok(Self { alphas_cumprod })
    }

    /// The number of training timesteps.
    pub(crate) fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// `alphas_cumprod` at `timestep`, or `before` for a negative timestep.
    pub(crate) fn alpha_cumprod(&self, timestep: i64, before: f32) -> f32 {
        match usize::try_from(timestep) {
            Ok(timestep) => self.alphas_cumprod[timestep.min(self.len() - 1)],
            Err(_) => before,
        }
    }

    /// The variance-exploding noise level of each training timestep: noise factor over sample factor. Rising.
    pub(crate) fn sigmas(&self) -> Vec<f32> {
        let levels = self.alphas_cumprod.iter();
        levels.map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
    }
}

/// torch's `linspace` in 32 bits: numbers are computed from the nearer end.
fn torch_linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
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

/// `squaredcos_cap_v2`: Nichol and Dhariwal, equation 17.
fn cosine_betas(count: usize) -> Vec<f32> {
    const OFFSET: f64 = 0.008;
    const MAX_BETA: f64 = 0.999;
    let alpha_bar = |index: usize| {
        let time = index as f64 / count as f64;
        ((time + OFFSET) / (1.0 + OFFSET) * FRAC_PI_2).cos().powi(2)
    };
    let beta = |index: usize| (1.0 - alpha_bar(index + 1) / alpha_bar(index)).min(MAX_BETA) as f32;
    (0..count).map(beta).collect()
}

/// torch's `cumprod`: accumulated in 64 bits, rounded to 32.
fn cumulative_product(numbers: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0_f64;
    numbers
        .map(|number| {
            product *= f64::from(number);
            product as f32
        })
        .collect()
}

/// Betas with zero SNR at the last timestep: `rescale_zero_terminal_snr` in diffusers.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas.iter().map(|beta| 1.0 - beta))
        .iter()
        .map(|alpha| alpha.sqrt())
        .collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let alphas: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
    let mut before = 1.0;
    alphas
        .iter()
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
    fn invalid_schedules_are_refused() {
        let refused = |text: &str| {
            let config = SchedulerConfig::parse(text).unwrap();
            TrainingSchedule::new(&config, SamplerKind::Euler)
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
        let table = |kind| TrainingSchedule::new(&config, kind).unwrap().alphas_cumprod;
        assert_eq!(table(SamplerKind::Ddim).last(), Some(&0.0));
        assert_eq!(table(SamplerKind::Euler).last(), Some(&2.0_f32.powi(-24)));
        assert!(table(SamplerKind::Lms).last() > Some(&1e-6));
    }
}
