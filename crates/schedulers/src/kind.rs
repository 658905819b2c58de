//! The samplers by the names that people know them by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::process::NoiseProcess;

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
    /// DPM-Solver-2, an evaluation in the middle of each step.
    Dpm2,
    /// DPM-Solver-2 with fresh noise after each step.
    Dpm2Ancestral,
    /// Denoising diffusion implicit models.
    Ddim,
    /// Denoising diffusion probabilistic models.
    Ddpm,
    /// Pseudo numerical methods, their linear multistep part (PLMS).
    Pndm,
    /// Pseudo numerical methods, beginning with three steps of Runge-Kutta.
    PndmRungeKutta,
    /// Linear multistep.
    Lms,
    /// Diffusion exponential integrator, multistep.
    Deis,
    /// DPM-Solver, multistep.
    Dpm2M,
    /// DPM-Solver for the stochastic equation, multistep.
    Dpm2MSde,
    /// DPM-Solver, singlestep.
    Dpm2S,
    /// DPM-Solver++, multistep.
    DpmPlusPlus2M,
    /// DPM-Solver++ for the stochastic equation, multistep.
    DpmPlusPlus2MSde,
    /// DPM-Solver++ for the stochastic equation, two evaluations a step.
    DpmPlusPlusSde,
    /// DPM-Solver++ for the stochastic equation, multistep over three predictions.
    DpmPlusPlus3MSde,
    /// DPM-Solver++, singlestep.
    DpmPlusPlus2S,
    /// DPM-Solver++ for the stochastic equation, singlestep.
    DpmPlusPlus2SSde,
    /// DPM-Solver++ with an evaluation in the middle of each step and fresh noise after it.
    DpmPlusPlus2SAncestral,
    /// Unified predictor and corrector.
    UniPc,
    /// Latent consistency models.
    Lcm,
    /// Trajectory consistency distillation.
    Tcd,
    /// Euler's method along the paths of rectified flow.
    FlowEuler,
    /// Heun's method along the paths of rectified flow.
    FlowHeun,
    /// Latent consistency models of rectified flow.
    FlowLcm,
    /// Euler's method for models preconditioned as EDM does.
    EdmEuler,
    /// DPM-Solver++, multistep, for models preconditioned as EDM does.
    EdmDpmPlusPlus2M,
    /// DPM-Solver++ for the stochastic equation, multistep, for models preconditioned as EDM does.
    EdmDpmPlusPlus2MSde,
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
    pub const ALL: [Self; 30] = [
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Lms,
        Self::Deis,
        Self::Dpm2M,
        Self::Dpm2MSde,
        Self::Dpm2S,
        Self::DpmPlusPlus2M,
        Self::DpmPlusPlus2MSde,
        Self::DpmPlusPlus3MSde,
        Self::DpmPlusPlusSde,
        Self::DpmPlusPlus2S,
        Self::DpmPlusPlus2SSde,
        Self::DpmPlusPlus2SAncestral,
        Self::UniPc,
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::PndmRungeKutta,
        Self::Lcm,
        Self::Tcd,
        Self::FlowEuler,
        Self::FlowHeun,
        Self::FlowLcm,
        Self::EdmEuler,
        Self::EdmDpmPlusPlus2M,
        Self::EdmDpmPlusPlus2MSde,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "Euler",
            Self::EulerAncestral => "Euler a",
            Self::Heun => "Heun",
            Self::Dpm2 => "DPM2",
            Self::Dpm2Ancestral => "DPM2 a",
            Self::Lms => "LMS",
            Self::Deis => "DEIS",
            Self::Dpm2M => "DPM 2M",
            Self::Dpm2MSde => "DPM 2M SDE",
            Self::Dpm2S => "DPM 2S",
            Self::DpmPlusPlus2M => "DPM++ 2M",
            Self::DpmPlusPlus2MSde => "DPM++ 2M SDE",
            Self::DpmPlusPlus3MSde => "DPM++ 3M SDE",
            Self::DpmPlusPlusSde => "DPM++ SDE",
            Self::DpmPlusPlus2S => "DPM++ 2S",
            Self::DpmPlusPlus2SSde => "DPM++ 2S SDE",
            Self::DpmPlusPlus2SAncestral => "DPM++ 2S a",
            Self::UniPc => "UniPC",
            Self::Ddim => "DDIM",
            Self::Ddpm => "DDPM",
            Self::Pndm => "PNDM",
            Self::PndmRungeKutta => "PNDM RK",
            Self::Lcm => "LCM",
            Self::Tcd => "TCD",
            Self::FlowEuler => "Flow Euler",
            Self::FlowHeun => "Flow Heun",
            Self::FlowLcm => "Flow LCM",
            Self::EdmEuler => "EDM Euler",
            Self::EdmDpmPlusPlus2M => "EDM DPM++ 2M",
            Self::EdmDpmPlusPlus2MSde => "EDM DPM++ 2M SDE",
        }
    }

    /// What it is good for, in one line.
    pub fn description(self) -> &'static str {
        match self {
            Self::Euler => "simple and dependable; the same picture with more detail as steps grow",
            Self::EulerAncestral => "adds noise at each step: varied, soft pictures that never settle",
            Self::Heun => "twice the work of Euler a step, for fewer steps",
            Self::Dpm2 => "as Heun, with its second evaluation in the middle of the step",
            Self::Dpm2Ancestral => "DPM2 with noise at each step",
            Self::Lms => "Euler that remembers its last four directions",
            Self::Deis => "remembers its last predictions of the noise: good pictures in 15 to 25 steps",
            Self::Dpm2M => "DPM-Solver before ++, for configurations that ask for it",
            Self::Dpm2MSde => "as DPM 2M with noise at each step",
            Self::Dpm2S => "as DPM 2M, in blocks of two or three steps",
            Self::DpmPlusPlus2M => "sharp pictures in 20 to 30 steps; a good first choice, best with karras",
            Self::DpmPlusPlus2MSde => "as DPM++ 2M with noise at each step: more texture",
            Self::DpmPlusPlus3MSde => {
                "remembers one prediction more than DPM++ 2M SDE; wants 30 steps and more"
            }
            Self::DpmPlusPlusSde => "noise at each step and two evaluations: detailed, slow",
            Self::DpmPlusPlus2S => "as DPM++ 2M, in blocks of two or three steps",
            Self::DpmPlusPlus2SSde => "as DPM++ 2S with noise at each step",
            Self::DpmPlusPlus2SAncestral => {
                "two evaluations a step and noise after it: varied, detailed, slow"
            }
            Self::UniPc => "predicts and corrects: good pictures in 10 to 20 steps",
            Self::Ddim => "the classic; even steps, no noise added",
            Self::Ddpm => "the original with noise at each step; wants many steps",
            Self::Pndm => "the default of Stable Diffusion 1.5, with four past predictions",
            Self::PndmRungeKutta => "PNDM that begins with three steps of four evaluations each",
            Self::Lcm => "for latent consistency models and their LoRAs: 4 to 8 steps, little guidance",
            Self::Tcd => {
                "for models and LoRAs of trajectory consistency distillation: 4 to 8 steps, little guidance"
            }
            Self::FlowEuler => "the default of Stable Diffusion 3, along straight paths",
            Self::FlowHeun => "twice the work of Flow Euler a step, for fewer steps",
            Self::FlowLcm => "for latent consistency models of rectified flow: 4 to 8 steps",
            Self::EdmEuler => "Euler for models preconditioned as EDM does (Playground 2.5, CosXL)",
            Self::EdmDpmPlusPlus2M => "DPM++ 2M for models preconditioned as EDM does (Playground 2.5)",
            Self::EdmDpmPlusPlus2MSde => "as EDM DPM++ 2M with noise at each step",
        }
    }

    /// The scheduler of diffusers that it follows; where diffusers has none, the one whose noise levels it takes.
    pub fn diffusers_class(self) -> &'static str {
        match self {
            Self::Euler | Self::DpmPlusPlus3MSde | Self::DpmPlusPlus2SAncestral => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Dpm2 => "KDPM2DiscreteScheduler",
            Self::Dpm2Ancestral => "KDPM2AncestralDiscreteScheduler",
            Self::Lms => "LMSDiscreteScheduler",
            Self::Deis => "DEISMultistepScheduler",
            Self::Dpm2M | Self::Dpm2MSde | Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde => {
                "DPMSolverMultistepScheduler"
            }
            Self::Dpm2S | Self::DpmPlusPlus2S | Self::DpmPlusPlus2SSde => "DPMSolverSinglestepScheduler",
            Self::DpmPlusPlusSde => "DPMSolverSDEScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm | Self::PndmRungeKutta => "PNDMScheduler",
            Self::Lcm => "LCMScheduler",
            Self::Tcd => "TCDScheduler",
            Self::FlowEuler => "FlowMatchEulerDiscreteScheduler",
            Self::FlowHeun => "FlowMatchHeunDiscreteScheduler",
            Self::FlowLcm => "FlowMatchLCMScheduler",
            Self::EdmEuler => "EDMEulerScheduler",
            Self::EdmDpmPlusPlus2M | Self::EdmDpmPlusPlus2MSde => "EDMDPMSolverMultistepScheduler",
        }
    }

    /// Whether it can lead models of `process`.
    pub(crate) fn leads(self, process: NoiseProcess) -> bool {
        match process {
            NoiseProcess::Flow => self.is_flow() || self.takes_flow(),
            NoiseProcess::Edm => self.is_edm(),
            NoiseProcess::Diffusion => !self.is_flow() && !self.is_edm(),
        }
    }

    /// Whether it follows the paths of rectified flow and nothing else.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::FlowEuler | Self::FlowHeun | Self::FlowLcm)
    }

    /// Whether it is for models that are preconditioned as EDM does and for nothing else.
    pub fn is_edm(self) -> bool {
        matches!(
            self,
            Self::EdmEuler | Self::EdmDpmPlusPlus2M | Self::EdmDpmPlusPlus2MSde
        )
    }

    /// Whether it follows the paths of rectified flow as well as those of diffusion.
    fn takes_flow(self) -> bool {
        matches!(
            self,
            Self::DpmPlusPlus2M
                | Self::DpmPlusPlus2MSde
                | Self::DpmPlusPlus2S
                | Self::DpmPlusPlus2SSde
                | Self::UniPc
                | Self::Deis
        )
    }

    /// What people mean by this name when they draw with a model of `process`: other programs call samplers by
    /// one name whatever the model.
    pub(crate) fn for_process(self, process: NoiseProcess) -> Self {
        match (process, self) {
            (NoiseProcess::Flow, Self::Euler) => Self::FlowEuler,
            (NoiseProcess::Flow, Self::Heun) => Self::FlowHeun,
            (NoiseProcess::Flow, Self::Lcm) => Self::FlowLcm,
            (NoiseProcess::Edm, Self::Euler) => Self::EdmEuler,
            (NoiseProcess::Edm, Self::DpmPlusPlus2M) => Self::EdmDpmPlusPlus2M,
            (NoiseProcess::Edm, Self::DpmPlusPlus2MSde) => Self::EdmDpmPlusPlus2MSde,
            (_, other) => other,
        }
    }

    /// How many times it asks the network in one step; PNDM asks more often at its beginning.
    pub(crate) fn order(self) -> usize {
        match self {
            Self::Heun
            | Self::Dpm2
            | Self::Dpm2Ancestral
            | Self::DpmPlusPlusSde
            | Self::DpmPlusPlus2SAncestral
            | Self::FlowHeun => 2,
            _ => 1,
        }
    }

    /// Whether it can follow noise levels that are not the model's own timesteps.
    pub(crate) fn bends(self) -> bool {
        !matches!(
            self,
            Self::Ddim | Self::Ddpm | Self::Pndm | Self::PndmRungeKutta | Self::Lcm | Self::Tcd
        )
    }

    /// Whether it is DPM-Solver or DPM-Solver++ over the predictions of the last steps.
    pub(crate) fn is_multistep(self) -> bool {
        matches!(
            self,
            Self::Dpm2M | Self::Dpm2MSde | Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde
        )
    }

    /// Whether it is DPM-Solver or DPM-Solver++ in blocks of steps.
    pub(crate) fn is_singlestep(self) -> bool {
        matches!(self, Self::Dpm2S | Self::DpmPlusPlus2S | Self::DpmPlusPlus2SSde)
    }

    /// The names of stable-diffusion-webui, ComfyUI, stable-diffusion.cpp and diffusers, as [`plain`] leaves
    /// them.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Euler => &["euler", "eulerdiscrete"],
            Self::EulerAncestral => &["eulera", "eulerancestral", "eulerancestraldiscrete"],
            Self::Heun => &["heun", "heundiscrete"],
            Self::Dpm2 => &["dpm2", "dpm2discrete"],
            Self::Dpm2Ancestral => &["dpm2a", "dpm2ancestral", "dpm2ancestraldiscrete"],
            Self::Lms => &["lms", "lmsdiscrete"],
            Self::Deis => &["deis", "deismultistep"],
            Self::Dpm2M => &["dpm2m"],
            Self::Dpm2MSde => &["dpm2msde"],
            Self::Dpm2S => &["dpm2s"],
            Self::DpmPlusPlus2M => &["dpmpp2m", "dpmpp2mv2", "dpmsolvermultistep"],
            Self::DpmPlusPlus2MSde => &["dpmpp2msde", "dpmpp2msdegpu"],
            Self::DpmPlusPlus3MSde => &["dpmpp3msde", "dpmpp3msdegpu"],
            Self::DpmPlusPlusSde => &["dpmppsde", "dpmppsdegpu", "dpmsolversde"],
            Self::DpmPlusPlus2S => &["dpmpp2s", "dpmsolversinglestep"],
            Self::DpmPlusPlus2SSde => &["dpmpp2ssde"],
            Self::DpmPlusPlus2SAncestral => &["dpmpp2sa", "dpmpp2sancestral"],
            Self::UniPc => &["unipc", "unipcmultistep"],
            Self::Ddim => &["ddim"],
            Self::Ddpm => &["ddpm"],
            Self::Pndm => &["pndm", "plms"],
            Self::PndmRungeKutta => &["pndmrk", "pndmrungekutta", "pndmprk"],
            Self::Lcm => &["lcm"],
            Self::Tcd => &["tcd"],
            Self::FlowEuler => &["floweuler", "flowmatcheuler", "flowmatcheulerdiscrete"],
            Self::FlowHeun => &["flowheun", "flowmatchheun", "flowmatchheundiscrete"],
            Self::FlowLcm => &["flowlcm", "flowmatchlcm"],
            Self::EdmEuler => &["edmeuler"],
            Self::EdmDpmPlusPlus2M => &["edmdpmpp2m", "edmdpmsolvermultistep"],
            Self::EdmDpmPlusPlus2MSde => &["edmdpmpp2msde"],
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

/// A name without what people write differently: case, spaces and signs, `++` or `pp`.
pub(crate) fn plain(name: &str) -> String {
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
            ("k_dpm_2", SamplerKind::Dpm2),
            ("KDPM2DiscreteScheduler", SamplerKind::Dpm2),
            ("KDPM2AncestralDiscrete", SamplerKind::Dpm2Ancestral),
            ("dpm_2_ancestral", SamplerKind::Dpm2Ancestral),
            ("DPM2 a", SamplerKind::Dpm2Ancestral),
            ("dpm++2s_a", SamplerKind::DpmPlusPlus2SAncestral),
            ("dpmpp_2s_ancestral", SamplerKind::DpmPlusPlus2SAncestral),
            ("k_dpmpp_2s_a", SamplerKind::DpmPlusPlus2SAncestral),
            ("dpmpp_3m_sde_gpu", SamplerKind::DpmPlusPlus3MSde),
            ("DPMSolverSinglestepScheduler", SamplerKind::DpmPlusPlus2S),
            ("DEISMultistepScheduler", SamplerKind::Deis),
            ("TCDScheduler", SamplerKind::Tcd),
            ("FlowMatchLCMScheduler", SamplerKind::FlowLcm),
            ("EDMEulerScheduler", SamplerKind::EdmEuler),
            ("EDMDPMSolverMultistep", SamplerKind::EdmDpmPlusPlus2M),
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
}
