//! The settings of diffusers' scheduler classes, and which of them a configuration may hold without being
//! obeyed.
//!
//! diffusers ignores settings that a class does not have, since configurations are passed from class to
//! class. Here a setting is refused if no class has it, or if the sampler's class has it and it is not
//! obeyed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::error::Refusal;

/// All settings of all schedulers of diffusers 0.42.1 with their defaults, by class.
/// `tools/reference/make_scheduler_settings.py` writes the file.
static SETTINGS: LazyLock<BTreeMap<String, BTreeMap<String, Value>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("known_settings.json")).unwrap_or_default());

/// Settings that have no effect without others that are refused.
pub(super) const WITHOUT_EFFECT: [&str; 3] =
    ["dynamic_thresholding_ratio", "sample_max_value", "upscale_mode"];

/// Settings of earlier versions of diffusers, which later versions ignore.
const FORMER: [&str; 3] = ["tensor_format", "timestep_values", "predict_epsilon"];

/// Whether the scheduler `class` has the setting `name`.
pub(crate) fn has(class: &str, name: &str) -> bool {
    SETTINGS
        .get(class)
        .is_some_and(|settings| settings.contains_key(name))
}

/// The default of the setting `name` of the scheduler `class`, if it has that setting.
pub(super) fn default(class: &str, name: &str) -> Option<&'static Value> {
    SETTINGS.get(class)?.get(name)
}

/// Whether the setting `name` is a boolean in a scheduler that has it.
pub(super) fn is_boolean(name: &str) -> bool {
    SETTINGS
        .values()
        .any(|settings| settings.get(name).is_some_and(Value::is_boolean))
}

/// Refuses a setting in `others`, the settings that no sampler reads, if the scheduler `class` obeys it in
/// diffusers or no class has it.
pub(super) fn check(others: &BTreeMap<String, Value>, class: &str) -> Result<(), Refusal> {
    for (name, value) in others {
        if name.starts_with('_') || matches!(value, Value::Null | Value::Bool(false)) {
            continue;
        }
        let of_class = SETTINGS.get(class).and_then(|settings| settings.get(name));
        let harmless = match of_class {
            Some(default) => equal(default, value) || WITHOUT_EFFECT.contains(&name.as_str()),
            None => is_known(name),
        };
        if !harmless {
            return Err(Refusal::UnknownSetting {
                name: name.clone(),
                value: value.to_string(),
            });
        }
    }
    Ok(())
}

/// Whether any scheduler of diffusers has or had the setting `name`.
pub(super) fn is_known(name: &str) -> bool {
    FORMER.contains(&name) || SETTINGS.values().any(|settings| settings.contains_key(name))
}

/// Whether two JSON values are equal, integers and floats compared by value.
fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SchedulerConfig;
    use crate::sampler_kind::SamplerKind;

    #[test]
    fn every_sampler_s_class_has_its_settings() {
        for kind in SamplerKind::ALL {
            assert!(has(kind.diffusers_class(), "num_train_timesteps"), "{kind}");
        }
    }

    #[test]
    fn what_is_not_obeyed_is_refused_by_name() {
        let checked = |text: &str, kind: SamplerKind| {
            let config = SchedulerConfig::parse(text).unwrap();
            config.check_settings(kind).map_err(|error| error.to_string())
        };
        let refused = [
            (r#"{"ets_mode": "x"}"#, SamplerKind::Euler, "`ets_mode` to \"x\""),
            (
                r#"{"scale_factors": [1, 2]}"#,
                SamplerKind::FlowLcm,
                "`scale_factors` to [1,2]",
            ),
            (r#"{"solver_p": {"a": 1}}"#, SamplerKind::UniPc, "solver_p"),
            (
                r#"{"noise_sampler_seed": 3}"#,
                SamplerKind::DpmPlusPlusSde,
                "noise_sampler_seed",
            ),
        ];
        for (text, kind, wanted) in refused {
            let error = checked(text, kind).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let harmless = [
            // A setting of another class.
            (r#"{"scale_factors": [1, 2]}"#, SamplerKind::Euler),
            // At its default, or without effect.
            (
                r#"{"sample_max_value": 1, "dynamic_thresholding_ratio": 0.9}"#,
                SamplerKind::Ddim,
            ),
            (r#"{"new_thing": null, "newer": false}"#, SamplerKind::Euler),
            (r#"{"_anything": 3}"#, SamplerKind::Euler),
            (r#"{"tensor_format": "pt"}"#, SamplerKind::Pndm),
        ];
        for (text, kind) in harmless {
            assert_eq!(checked(text, kind), Ok(()), "{text}");
        }
    }
}
