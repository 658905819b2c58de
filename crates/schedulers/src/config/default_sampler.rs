//! The default sampler of a model: the one that implements its scheduler class.

use super::SchedulerConfig;
use crate::error::Refusal;
use crate::sampler_kind::SamplerKind;

impl SchedulerConfig {
    /// The default sampler: the one for the configuration's class and `algorithm_type`.
    ///
    /// # Errors
    /// No sampler implements the class, or the class with this `algorithm_type`.
    pub fn sampler(&self) -> Result<SamplerKind, Refusal> {
        let class = self.class_name.as_deref().unwrap_or_default();
        Ok(match class {
            "EulerDiscreteScheduler" => SamplerKind::Euler,
            "EulerAncestralDiscreteScheduler" => SamplerKind::EulerAncestral,
            "HeunDiscreteScheduler" => SamplerKind::Heun,
            "KDPM2DiscreteScheduler" => SamplerKind::Dpm2,
            "KDPM2AncestralDiscreteScheduler" => SamplerKind::Dpm2Ancestral,
            "LMSDiscreteScheduler" => SamplerKind::Lms,
            "DEISMultistepScheduler" => SamplerKind::Deis,
            "DPMSolverSDEScheduler" => SamplerKind::DpmPlusPlusSde,
            "UniPCMultistepScheduler" => SamplerKind::UniPc,
            "DDIMScheduler" => SamplerKind::Ddim,
            "DDPMScheduler" => SamplerKind::Ddpm,
            "PNDMScheduler" if self.skip_prk_steps == Some(true) => SamplerKind::Pndm,
            "PNDMScheduler" => SamplerKind::PndmRungeKutta,
            "LCMScheduler" => SamplerKind::Lcm,
            "TCDScheduler" => SamplerKind::Tcd,
            "FlowMatchEulerDiscreteScheduler" => SamplerKind::FlowEuler,
            "FlowMatchHeunDiscreteScheduler" => SamplerKind::FlowHeun,
            "FlowMatchLCMScheduler" => SamplerKind::FlowLcm,
            "EDMEulerScheduler" => SamplerKind::EdmEuler,
            "DPMSolverMultistepScheduler"
            | "DPMSolverSinglestepScheduler"
            | "EDMDPMSolverMultistepScheduler" => {
                return self.dpm_solver(class);
            }
            _ => {
                return Err(Refusal::UnknownClass {
                    class_name: class.to_owned(),
                });
            }
        })
    }

    /// The sampler for a class of DPM-Solver, by `algorithm_type`.
    fn dpm_solver(&self, class: &str) -> Result<SamplerKind, Refusal> {
        let algorithm = self.algorithm_type.as_deref().unwrap_or("dpmsolver++");
        Ok(match (class, algorithm) {
            // diffusers reads DEIS's value as `dpmsolver++`.
            ("DPMSolverMultistepScheduler", "dpmsolver++" | "deis") => SamplerKind::DpmPlusPlus2M,
            ("DPMSolverMultistepScheduler", "sde-dpmsolver++") => SamplerKind::DpmPlusPlus2MSde,
            ("DPMSolverMultistepScheduler", "dpmsolver") => SamplerKind::Dpm2M,
            ("DPMSolverMultistepScheduler", "sde-dpmsolver") => SamplerKind::Dpm2MSde,
            ("DPMSolverSinglestepScheduler", "dpmsolver++" | "deis") => SamplerKind::DpmPlusPlus2S,
            ("DPMSolverSinglestepScheduler", "sde-dpmsolver++") => SamplerKind::DpmPlusPlus2SSde,
            ("DPMSolverSinglestepScheduler", "dpmsolver") => SamplerKind::Dpm2S,
            ("EDMDPMSolverMultistepScheduler", "dpmsolver++" | "deis") => SamplerKind::EdmDpmPlusPlus2M,
            ("EDMDPMSolverMultistepScheduler", "sde-dpmsolver++") => SamplerKind::EdmDpmPlusPlus2MSde,
            _ => {
                return Err(Refusal::setting("algorithm_type", algorithm));
            }
        })
    }

    /// The sampler that the name of `kind` means for this model: other programs use one name, such as Euler,
    /// for diffusion, rectified-flow and EDM models.
    #[must_use]
    pub fn sampler_called(&self, kind: SamplerKind) -> SamplerKind {
        kind.for_process(self.process())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SchedulerConfig {
        SchedulerConfig::parse(text).unwrap()
    }

    #[test]
    fn each_scheduler_class_has_its_sampler() {
        for kind in SamplerKind::ALL {
            let algorithm = match kind {
                SamplerKind::DpmPlusPlus2MSde
                | SamplerKind::DpmPlusPlus2SSde
                | SamplerKind::EdmDpmPlusPlus2MSde => "sde-dpmsolver++",
                SamplerKind::Dpm2M | SamplerKind::Dpm2S => "dpmsolver",
                SamplerKind::Dpm2MSde => "sde-dpmsolver",
                _ => "dpmsolver++",
            };
            let config = SchedulerConfig {
                class_name: Some(kind.diffusers_class().to_owned()),
                algorithm_type: Some(algorithm.to_owned()),
                skip_prk_steps: Some(kind == SamplerKind::Pndm),
                ..Default::default()
            };
            // diffusers has no scheduler for these.
            let of_class = match kind {
                SamplerKind::DpmPlusPlus3MSde | SamplerKind::DpmPlusPlus2SAncestral => SamplerKind::Euler,
                other => other,
            };
            assert_eq!(config.sampler(), Ok(of_class));
            assert_eq!(config.is_flow(), kind.is_flow());
            assert_eq!(config.sampler_called(kind), kind);
        }
    }

    #[test]
    fn missing_settings_have_the_defaults_of_the_class() {
        let sampler = |text: &str| read(text).sampler();
        assert_eq!(
            sampler(r#"{"_class_name": "PNDMScheduler"}"#),
            Ok(SamplerKind::PndmRungeKutta)
        );
        assert_eq!(
            sampler(r#"{"_class_name": "DPMSolverSinglestepScheduler"}"#),
            Ok(SamplerKind::DpmPlusPlus2S)
        );
    }

    #[test]
    fn what_no_sampler_is_is_refused_by_name() {
        for class in ["VQDiffusionScheduler", "SASolverScheduler", ""] {
            let error = read(&format!(r#"{{"_class_name": "{class}"}}"#))
                .sampler()
                .unwrap_err();
            let wanted = Refusal::UnknownClass {
                class_name: class.to_owned(),
            };
            assert_eq!(error, wanted);
        }
        let error =
            read(r#"{"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver"}"#)
                .sampler()
                .unwrap_err();
        assert!(
            error.to_string().contains("`algorithm_type` to `sde-dpmsolver`"),
            "{error}"
        );
    }
}
