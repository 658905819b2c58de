//! The noise schedules by the names that other programs use.

use serde::{Deserialize, Serialize};

use crate::unknown_name::named;

/// A noise schedule: how the noise levels are spread over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ScheduleKind {
    /// The schedule of the model's configuration.
    #[default]
    Automatic,
    /// The model's own timesteps, spaced by the configuration's `timestep_spacing`.
    Normal,
    /// `use_karras_sigmas`: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
    /// Models", 2022, equation 5.
    Karras,
    /// `use_exponential_sigmas`: evenly spaced in the logarithm of the noise level.
    Exponential,
    /// The model's own timesteps with `trailing` spacing: evenly spaced, beginning at the last one.
    SgmUniform,
    /// `use_beta_sigmas`: Lee et al., "Beta Sampling is All You Need", 2024.
    Beta,
}

impl ScheduleKind {
    /// All schedules, in the order of the list that `--scheduler help` prints.
    pub const ALL: [Self; 6] = [
        Self::Automatic,
        Self::Normal,
        Self::Karras,
        Self::Exponential,
        Self::SgmUniform,
        Self::Beta,
    ];

    /// The name, as ComfyUI writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Normal => "normal",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::SgmUniform => "sgm_uniform",
            Self::Beta => "beta",
        }
    }

    /// The name, as stable-diffusion-webui writes it into an image's parameters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Automatic => "Automatic",
            Self::Normal => "Normal",
            Self::Karras => "Karras",
            Self::Exponential => "Exponential",
            Self::SgmUniform => "SGM Uniform",
            Self::Beta => "Beta",
        }
    }

    /// What the schedule is good for, in one line.
    pub fn description(self) -> &'static str {
        match self {
            Self::Automatic => "what the model's configuration says",
            Self::Normal => "even steps along the model's own timesteps",
            Self::Karras => "more steps at little noise: fine detail in few steps",
            Self::Exponential => "each step takes away the same share of the noise",
            Self::SgmUniform => {
                "even steps from full noise on; for turbo, lightning and other distilled models"
            }
            Self::Beta => "more steps at both ends, where images get their layout and their detail",
        }
    }

    /// Whether `name`, after [`normalized`](crate::unknown_name::normalized), means the schedule.
    fn is_called(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::Automatic => &["automatic", "auto"],
            Self::Normal => &["normal", "discrete", "uniform"],
            Self::Karras => &["karras"],
            Self::Exponential => &["exponential"],
            Self::SgmUniform => &["sgmuniform", "simple", "trailing"],
            Self::Beta => &["beta"],
        };
        names.contains(&name)
    }
}

named!(ScheduleKind, "schedule");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_read_back() {
        for kind in ScheduleKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.label().parse(), Ok(kind));
        }
        assert_eq!("simple".parse(), Ok(ScheduleKind::SgmUniform));
        assert_eq!("discrete".parse(), Ok(ScheduleKind::Normal));
        assert!(
            "Align Your Steps"
                .parse::<ScheduleKind>()
                .unwrap_err()
                .to_string()
                .contains("karras")
        );
    }
}
