//! Settings that a configuration names without a usable value: `null`, `NaN`, `Infinity` and `-Infinity`.
//!
//! A scheduler of diffusers computes with such a value instead of its default, and mostly fails. Where an image
//! depends on it, it is refused.

use super::{SchedulerConfig, known_settings};
use crate::error::Refusal;
use crate::sampler_kind::SamplerKind;

impl SchedulerConfig {
    /// Refuses a setting in [`unset`](Self::unset) on which an image of the sampler `kind` depends.
    pub(super) fn check_unset(&self, kind: SamplerKind) -> Result<(), Refusal> {
        // The shift of rectified flow is taken from the class of the file too.
        let of_file = self.class_name.as_deref().filter(|_| self.is_flow());
        let classes = [Some(kind.diffusers_class()), of_file];
        for (name, written) in &self.unset {
            let of_class = classes
                .into_iter()
                .flatten()
                .find_map(|class| known_settings::default(class, name));
            let harmless = match (of_class, written.as_str()) {
                _ if name.starts_with('_') => true,
                (None, "null") => true,
                (None, _) => known_settings::is_known(name),
                (Some(default), "null") if default.is_null() || known_settings::is_boolean(name) => true,
                (Some(_), written) => {
                    known_settings::WITHOUT_EFFECT.contains(&name.as_str())
                        || !self.changes_images(name, written)
                }
            };
            if !harmless {
                return Err(Refusal::UnknownSetting {
                    name: name.clone(),
                    value: written.clone(),
                });
            }
        }
        Ok(())
    }

    /// Whether the setting `name`, `written` in its file without a usable value, changes images beside the others.
    fn changes_images(&self, name: &str, written: &str) -> bool {
        match name {
            "beta_start" | "beta_end" | "beta_schedule" => self.trained_betas.is_none(),
            "clip_sample_range" => self.clip_sample != Some(false),
            "base_shift" | "max_shift" | "base_image_seq_len" | "max_image_seq_len" => {
                self.use_dynamic_shifting == Some(true)
            }
            "shift" | "flow_shift" => self.is_flow(),
            // diffusers compares these with the values that it knows, and takes any other for the default.
            "variance_type" | "timestep_type" => written != "null",
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_without_a_usable_value_is_refused_by_name() {
        let checked = |text: &str, kind: SamplerKind| {
            let config = SchedulerConfig::parse(text).unwrap();
            config.check_settings(kind).map_err(|error| error.to_string())
        };
        for (name, written, kind) in [
            ("beta_start", "null", SamplerKind::Euler),
            ("beta_start", "NaN", SamplerKind::Euler),
            ("beta_schedule", "null", SamplerKind::Pndm),
            ("num_train_timesteps", "null", SamplerKind::Ddim),
            ("prediction_type", "null", SamplerKind::Ddim),
            ("timestep_spacing", "null", SamplerKind::Euler),
            ("interpolation_type", "null", SamplerKind::Euler),
            ("solver_order", "null", SamplerKind::DpmPlusPlus2M),
            ("solver_type", "null", SamplerKind::UniPc),
            ("algorithm_type", "null", SamplerKind::DpmPlusPlus2M),
            ("final_sigmas_type", "null", SamplerKind::DpmPlusPlus2M),
            ("lambda_min_clipped", "Infinity", SamplerKind::DpmPlusPlus2M),
            ("sigma_min", "NaN", SamplerKind::Euler),
            ("disable_corrector", "null", SamplerKind::UniPc),
            ("original_inference_steps", "null", SamplerKind::Lcm),
            ("steps_offset", "-Infinity", SamplerKind::Ddim),
            ("shift", "null", SamplerKind::FlowEuler),
            ("time_shift_type", "null", SamplerKind::FlowEuler),
            ("nobody_s", "NaN", SamplerKind::Euler),
        ] {
            let class = kind.diffusers_class();
            let error = checked(
                &format!(r#"{{"_class_name": "{class}", "{name}": {written}}}"#),
                kind,
            );
            let wanted = Refusal::UnknownSetting {
                name: name.to_owned(),
                value: written.to_owned(),
            };
            assert_eq!(error, Err(wanted.to_string()));
        }
        let flow = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": NaN}"#;
        assert!(checked(flow, SamplerKind::DpmPlusPlus2M).is_err());
        let harmless = [
            // As the class's default has it, or false.
            (
                r#"{"sigma_min": null, "trained_betas": null, "clip_sample": null, "use_karras_sigmas": null}"#,
                SamplerKind::Euler,
            ),
            (r#"{"lambda_min_clipped": -Infinity}"#, SamplerKind::DpmPlusPlus2M),
            (r#"{"variance_type": null}"#, SamplerKind::Ddpm),
            // Nothing of what is drawn depends on them.
            (
                r#"{"base_shift": null, "max_shift": NaN}"#,
                SamplerKind::FlowEuler,
            ),
            (r#"{"flow_shift": null}"#, SamplerKind::DpmPlusPlus2M),
            (r#"{"sample_max_value": Infinity}"#, SamplerKind::Ddim),
            // Another class's.
            (
                r#"{"lambda_min_clipped": NaN, "solver_order": null}"#,
                SamplerKind::Euler,
            ),
        ];
        for (text, kind) in harmless {
            assert_eq!(checked(text, kind), Ok(()), "{text}");
        }
    }
}
