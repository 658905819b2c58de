//! The samplers by the names that people know them by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::schedule_kind::ScheduleKind;

/// A way to get from one noise level to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum SamplerKind {
    /// Euler's method.
    Euler,
    /// Euler's method with fresh noise after each step.
    EulerAncestral,
    /// Heun's method, two evaluations a step.
    Heun,
    /// Denoising diffusion implicit models.
    Ddim,
    /// Denoising diffusion probabilistic models.
    Ddpm,
    /// Pseudo numerical methods, their linear multistep part (PLMS).
    Pndm,
    /// Linear multistep.
    Lms,
    /// DPM-Solver++, multistep.
    DpmPlusPlus2M,
    /// DPM-Solver++ for the stochastic equation, multistep.
    DpmPlusPlus2MSde,
    /// DPM-Solver++ for the stochastic equation, two evaluations a step.
    DpmPlusPlusSde,
    /// Unified predictor and corrector.
    UniPc,
    /// Latent consistency models.
    Lcm,
    /// Euler's method along the paths of rectified flow.
    FlowEuler,
    /// Heun's method along the paths of rectified flow.
    FlowHeun,
}

/// A text that names no sampler, or no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}; there are {}", known.join(", "))]
pub struct UnknownName {
    /// What was looked for: a sampler or a schedule.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// The names that there are.
    pub known: Vec<String>,
}

impl SamplerKind {
    /// Every sampler, in the order in which they are listed.
    pub const ALL: [Self; 14] = [
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Lms,
        Self::DpmPlusPlus2M,
        Self::DpmPlusPlus2MSde,
        Self::DpmPlusPlusSde,
        Self::UniPc,
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Lcm,
        Self::FlowEuler,
        Self::FlowHeun,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "Euler",
            Self::EulerAncestral => "Euler a",
            Self::Heun => "Heun",
            Self::Ddim => "DDIM",
            Self::Ddpm => "DDPM",
            Self::Pndm => "PNDM",
            Self::Lms => "LMS",
            Self::DpmPlusPlus2M => "DPM++ 2M",
            Self::DpmPlusPlus2MSde => "DPM++ 2M SDE",
            Self::DpmPlusPlusSde => "DPM++ SDE",
            Self::UniPc => "UniPC",
            Self::Lcm => "LCM",
            Self::FlowEuler => "Flow Euler",
            Self::FlowHeun => "Flow Heun",
        }
    }

    /// What it is good for, in one line.
    pub fn description(self) -> &'static str {
        match self {
            Self::Euler => "simple and dependable; the same picture with more detail as steps grow",
            Self::EulerAncestral => "adds noise at each step: varied, soft pictures that never settle",
            Self::Heun => "twice the work of Euler a step, for fewer steps",
            Self::Ddim => "the classic; even steps, no noise added",
            Self::Ddpm => "the original with noise at each step; wants many steps",
            Self::Pndm => "the default of Stable Diffusion 1.5, with four past predictions",
            Self::Lms => "Euler that remembers its last four directions",
            Self::DpmPlusPlus2M => "sharp pictures in 20 to 30 steps; a good first choice, best with karras",
            Self::DpmPlusPlus2MSde => "as DPM++ 2M with noise at each step: more texture",
            Self::DpmPlusPlusSde => "noise at each step and two evaluations: detailed, slow",
            Self::UniPc => "predicts and corrects: good pictures in 10 to 20 steps",
            Self::Lcm => "for latent consistency models and their LoRAs: 4 to 8 steps, little guidance",
            Self::FlowEuler => "the default of Stable Diffusion 3, along straight paths",
            Self::FlowHeun => "twice the work of Flow Euler a step, for fewer steps",
        }
    }

    /// The scheduler of diffusers that it follows.
    pub fn diffusers_class(self) -> &'static str {
        match self {
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Lms => "LMSDiscreteScheduler",
            Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde => "DPMSolverMultistepScheduler",
            Self::DpmPlusPlusSde => "DPMSolverSDEScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
            Self::FlowEuler => "FlowMatchEulerDiscreteScheduler",
            Self::FlowHeun => "FlowMatchHeunDiscreteScheduler",
        }
    }

    /// Whether it follows the paths of rectified flow, as Stable Diffusion 3 does.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::FlowEuler | Self::FlowHeun)
    }

    /// What people mean by this name when they draw with such a model: other programs call the samplers of
    /// rectified flow by the plain names.
    pub fn for_flow(self, flow: bool) -> Self {
        match self {
            Self::Euler if flow => Self::FlowEuler,
            Self::Heun if flow => Self::FlowHeun,
            other => other,
        }
    }

    /// How many times it asks the network in one step; PNDM asks once more in its second.
    pub(super) fn order(self) -> usize {
        match self {
            Self::Heun | Self::DpmPlusPlusSde | Self::FlowHeun => 2,
            _ => 1,
        }
    }

    /// Whether it can follow noise levels that are not the model's own timesteps.
    pub(super) fn bends(self) -> bool {
        !matches!(self, Self::Ddim | Self::Ddpm | Self::Pndm | Self::Lcm)
    }

    /// The names of stable-diffusion-webui, ComfyUI, stable-diffusion.cpp and diffusers, as [`plain`] leaves
    /// them.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Euler => &["euler", "eulerdiscrete"],
            Self::EulerAncestral => &["eulera", "eulerancestral", "eulerancestraldiscrete"],
            Self::Heun => &["heun", "heundiscrete"],
            Self::Ddim => &["ddim"],
            Self::Ddpm => &["ddpm"],
            Self::Pndm => &["pndm", "plms"],
            Self::Lms => &["lms", "lmsdiscrete"],
            Self::DpmPlusPlus2M => &["dpmpp2m", "dpmpp2mv2", "dpmsolvermultistep"],
            Self::DpmPlusPlus2MSde => &["dpmpp2msde", "dpmpp2msdegpu"],
            Self::DpmPlusPlusSde => &["dpmppsde", "dpmppsdegpu", "dpmsolversde"],
            Self::UniPc => &["unipc", "unipcmultistep"],
            Self::Lcm => &["lcm"],
            Self::FlowEuler => &["floweuler", "flowmatcheuler", "flowmatcheulerdiscrete"],
            Self::FlowHeun => &["flowheun", "flowmatchheun", "flowmatchheundiscrete"],
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let plain = plain(text);
        let plain = plain.strip_suffix("scheduler").unwrap_or(&plain);
        let without_k = plain.strip_prefix('k').unwrap_or(plain);
        Self::ALL
            .into_iter()
            .find(|kind| {
                let aliases = kind.aliases();
                aliases.contains(&plain) || aliases.contains(&without_k)
            })
            .ok_or_else(|| UnknownName {
                what: "sampler",
                given: text.to_owned(),
                known: Self::ALL.map(|kind| kind.name().to_owned()).to_vec(),
            })
    }
}

impl From<SamplerKind> for String {
    fn from(kind: SamplerKind) -> Self {
        kind.name().to_owned()
    }
}

impl TryFrom<String> for SamplerKind {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, UnknownName> {
        text.parse()
    }
}

/// A sampler and what was said with it about its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerChoice {
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its schedule; automatic where the name says nothing of it.
    pub schedule: ScheduleKind,
}

impl FromStr for SamplerChoice {
    type Err = UnknownName;

    /// Reads a sampler's name with or without its schedule's, such as `DPM++ 2M Karras`.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let choice = |sampler, schedule| Self { sampler, schedule };
        let unknown = match text.parse() {
            Ok(sampler) => return Ok(choice(sampler, ScheduleKind::Automatic)),
            Err(unknown) => unknown,
        };
        // stable-diffusion.cpp's name for it.
        if plain(text) == "ddimtrailing" {
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

/// A name without what people write differently: case, spaces and signs, `++` or `pp`.
pub(super) fn plain(name: &str) -> String {
    let letters = name.trim().to_lowercase().replace('+', "p");
    letters
        .chars()
        .filter(|letter| !matches!(letter, ' ' | '_' | '-' | '.'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_known() {
        let cases = [
            ("Euler a", SamplerKind::EulerAncestral),
            ("euler_ancestral", SamplerKind::EulerAncestral),
            ("EulerAncestralDiscrete", SamplerKind::EulerAncestral),
            ("k_euler_a", SamplerKind::EulerAncestral),
            ("k_heun", SamplerKind::Heun),
            ("DPM++ 2M", SamplerKind::DpmPlusPlus2M),
            ("dpmpp_2m", SamplerKind::DpmPlusPlus2M),
            ("dpm++2mv2", SamplerKind::DpmPlusPlus2M),
            ("DPMSolverMultistepScheduler", SamplerKind::DpmPlusPlus2M),
            ("dpmpp_2m_sde_gpu", SamplerKind::DpmPlusPlus2MSde),
            ("dpm++2m_sde", SamplerKind::DpmPlusPlus2MSde),
            ("DPM++ SDE", SamplerKind::DpmPlusPlusSde),
            ("uni_pc", SamplerKind::UniPc),
            ("PLMS", SamplerKind::Pndm),
            ("FlowMatchEulerDiscreteScheduler", SamplerKind::FlowEuler),
        ];
        for (name, kind) in cases {
            assert_eq!(name.parse(), Ok(kind), "{name}");
        }
        for kind in SamplerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }

    #[test]
    fn no_two_samplers_share_a_name() {
        let mut names: Vec<_> = SamplerKind::ALL.iter().flat_map(|kind| kind.aliases()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

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
