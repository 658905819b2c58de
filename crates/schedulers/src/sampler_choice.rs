//! Reads a sampler and its schedule from one name, such as `DPM++ 2M Karras`.

use std::str::FromStr;

use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;
use crate::unknown_name::{UnknownName, normalized};

/// A sampler together with the schedule that its name includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerChoice {
    /// The sampler.
    pub sampler: SamplerKind,
    /// The schedule; automatic if the name includes none.
    pub schedule: ScheduleKind,
}

impl FromStr for SamplerChoice {
    type Err = UnknownName;

    /// Reads the name of a sampler, with or without that of a schedule, such as `DPM++ 2M Karras`.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let choice = |sampler, schedule| Self { sampler, schedule };
        let unknown = match text.parse() {
            Ok(sampler) => return Ok(choice(sampler, ScheduleKind::Automatic)),
            Err(unknown) => unknown,
        };
        // A name of stable-diffusion.cpp.
        if normalized(text) == "ddimtrailing" {
            return Ok(choice(SamplerKind::Ddim, ScheduleKind::SgmUniform));
        }
        let breaks = text
            .char_indices()
            .filter(|(_, letter)| matches!(letter, ' ' | '_' | '-'));
        breaks
            .filter_map(|(at, _)| Some(choice(text[..at].parse().ok()?, text[at + 1..].parse().ok()?)))
            .next()
            .ok_or(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_say_the_schedule() {
        let choice = |text: &str| {
            text.parse::<SamplerChoice>()
                .map(|choice| (choice.sampler, choice.schedule))
        };
        let two_m = SamplerKind::DpmPlusPlus2M;
        assert_eq!(choice("DPM++ 2M Karras"), Ok((two_m, ScheduleKind::Karras)));
        assert_eq!(
            choice("DPM++ 2M SDE Exponential"),
            Ok((SamplerKind::DpmPlusPlus2MSde, ScheduleKind::Exponential))
        );
        assert_eq!(
            choice("euler_a karras"),
            Ok((SamplerKind::EulerAncestral, ScheduleKind::Karras))
        );
        assert_eq!(
            choice("euler_sgm_uniform"),
            Ok((SamplerKind::Euler, ScheduleKind::SgmUniform))
        );
        assert_eq!(
            choice("ddim_trailing"),
            Ok((SamplerKind::Ddim, ScheduleKind::SgmUniform))
        );
        assert_eq!(choice("UniPC"), Ok((SamplerKind::UniPc, ScheduleKind::Automatic)));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "DPM fast".parse::<SamplerChoice>().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`DPM fast` is no sampler; there are Euler, Euler a, Heun")
        );
        assert!("".parse::<SamplerChoice>().is_err());
        assert!("é karras".parse::<SamplerChoice>().is_err());
    }
}
