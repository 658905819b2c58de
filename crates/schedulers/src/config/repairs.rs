//! The corrections that diffusers' pipelines apply to outdated scheduler configurations.

use super::SchedulerConfig;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// Settings that a pipeline of diffusers overrides, since old configuration files leave them out or have
/// other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// `steps_offset` becomes 1.
    pub steps_offset: bool,
    /// `clip_sample` becomes false.
    pub clip_sample: bool,
    /// `skip_prk_steps` becomes true.
    pub skip_prk_steps: bool,
}

impl SchedulerConfig {
    /// The configuration with `repairs` applied.
    pub fn repaired(&self, repairs: Repairs) -> Self {
        let mut config = self.clone();
        if repairs.steps_offset {
            config.unset.remove("steps_offset");
            config.steps_offset = Some(1);
        }
        if repairs.clip_sample {
            config.clip_sample = Some(false);
        }
        // Here diffusers looks for false, which null is not.
        if repairs.skip_prk_steps && !self.unset.contains_key("skip_prk_steps") {
            config.skip_prk_steps = Some(true);
        }
        config
    }

    /// The configuration from which a sampler of `kind` with `schedule` is built.
    ///
    /// All of `repairs` apply to the model's own sampler. A sampler that replaces it takes over the repaired
    /// settings of the file, but its own defaults apply to the settings that the file leaves out, as after
    /// diffusers' `from_config`. It never clips samples, though DDIM and DDPM in diffusers would: latents
    /// have no fixed range.
    pub fn repaired_for(&self, repairs: Repairs, kind: SamplerKind, schedule: ScheduleKind) -> Self {
        let own = self.repaired(repairs);
        let is_own = own.sampler().is_ok_and(|own| own == kind);
        if is_own && schedule == ScheduleKind::Automatic {
            return own;
        }
        Self {
            steps_offset: own
                .steps_offset
                .filter(|_| self.says("steps_offset", self.steps_offset)),
            skip_prk_steps: own.skip_prk_steps.filter(|_| self.skip_prk_steps.is_some()),
            clip_sample: if is_own { own.clip_sample } else { Some(false) },
            ..own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Repairs = Repairs {
        steps_offset: true,
        clip_sample: true,
        skip_prk_steps: true,
    };

    fn read(text: &str) -> SchedulerConfig {
        SchedulerConfig::parse(text).unwrap()
    }

    fn repaired(text: &str, repairs: Repairs, kind: SamplerKind) -> SchedulerConfig {
        read(text).repaired_for(repairs, kind, ScheduleKind::Automatic)
    }

    #[test]
    fn the_model_s_own_sampler_has_every_repair() {
        let config = repaired(r#"{"_class_name": "DDIMScheduler"}"#, ALL, SamplerKind::Ddim);
        assert_eq!((config.steps_offset, config.clip_sample), (Some(1), Some(false)));
        let text = r#"{"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": true}"#;
        let config = repaired(text, Repairs::default(), SamplerKind::Ddim);
        assert_eq!((config.steps_offset, config.clip_sample), (Some(0), Some(true)));
        let text = r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": false}"#;
        assert_eq!(repaired(text, ALL, SamplerKind::Pndm).skip_prk_steps, Some(true));
    }

    #[test]
    fn another_sampler_uses_the_settings_of_the_file_and_never_clips() {
        let said = r#"{"_class_name": "PNDMScheduler", "steps_offset": 0, "clip_sample": true}"#;
        let config = repaired(said, ALL, SamplerKind::Ddpm);
        assert_eq!((config.steps_offset, config.clip_sample), (Some(1), Some(false)));
        let left_out = r#"{"_class_name": "PNDMScheduler"}"#;
        let config = repaired(left_out, ALL, SamplerKind::Ddpm);
        assert_eq!((config.steps_offset, config.clip_sample), (None, Some(false)));
        let config = repaired(said, Repairs::default(), SamplerKind::Ddim);
        assert_eq!((config.steps_offset, config.clip_sample), (Some(0), Some(false)));
    }

    #[test]
    fn the_own_sampler_on_another_schedule_is_made_anew() {
        let own = read(r#"{"_class_name": "EulerDiscreteScheduler"}"#);
        let config = own.repaired_for(ALL, SamplerKind::Euler, ScheduleKind::Karras);
        assert_eq!(config.steps_offset, None);
    }
}
