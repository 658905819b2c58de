//! The scheduler configuration of a model: `scheduler/scheduler_config.json` of any scheduler class of
//! diffusers, as far as images depend on it.
//!
//! A setting that the file leaves out stays `None`, and each sampler applies its own default: the classes of
//! diffusers differ in their defaults, and a scheduler that replaces the model's own (`from_config`) takes
//! over only the settings of the file.

mod default_sampler;
pub(crate) mod flow_match;
pub(crate) mod known_settings;
pub(crate) mod repairs;
mod unset;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use self::flow_match::FlowMatchEulerConfig;
use crate::error::{ConfigError, Refusal};
use crate::noise_process::NoiseProcess;
use crate::sampler_kind::SamplerKind;
use crate::schedule_kind::ScheduleKind;

/// The settings of a scheduler, as the file has them; `None` where it has none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "diffusers documents each under the same name")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    pub num_train_timesteps: Option<usize>,
    pub prediction_type: Option<String>,

    pub beta_schedule: Option<String>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub trained_betas: Option<Vec<f32>>,
    pub rescale_betas_zero_snr: Option<bool>,

    pub timestep_spacing: Option<String>,
    pub steps_offset: Option<usize>,
    pub use_karras_sigmas: Option<bool>,
    pub use_exponential_sigmas: Option<bool>,
    pub use_beta_sigmas: Option<bool>,
    pub use_lu_lambdas: Option<bool>,
    pub use_flow_sigmas: Option<bool>,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: Option<String>,
    pub interpolation_type: Option<String>,
    pub timestep_type: Option<String>,
    pub lambda_min_clipped: Option<f32>,

    pub clip_sample: Option<bool>,
    pub clip_sample_range: Option<f64>,
    pub thresholding: Option<bool>,
    pub set_alpha_to_one: Option<bool>,
    pub variance_type: Option<String>,

    pub algorithm_type: Option<String>,
    pub solver_order: Option<usize>,
    pub solver_type: Option<String>,
    pub lower_order_final: Option<bool>,
    pub euler_at_final: Option<bool>,
    pub predict_x0: Option<bool>,
    pub disable_corrector: Option<Vec<usize>>,
    pub skip_prk_steps: Option<bool>,

    pub original_inference_steps: Option<usize>,
    pub timestep_scaling: Option<f32>,

    pub shift: Option<f64>,
    pub flow_shift: Option<f64>,
    pub use_dynamic_shifting: Option<bool>,
    pub base_shift: Option<f64>,
    pub max_shift: Option<f64>,
    pub base_image_seq_len: Option<usize>,
    pub max_image_seq_len: Option<usize>,
    pub time_shift_type: Option<String>,
    pub invert_sigmas: Option<bool>,
    pub stochastic_sampling: Option<bool>,
    pub shift_terminal: Option<f64>,

    pub sigma_data: Option<f64>,
    pub sigma_schedule: Option<String>,
    pub rho: Option<f64>,

    /// The share of DDPM's noise that DDIM and TCD add, from 0 (the default) to 1. In diffusers it is an
    /// argument of the pipeline; no file has it.
    #[serde(skip)]
    pub eta: Option<f64>,

    /// Settings that are `null`, `NaN`, `Infinity` or `-Infinity`, each with that text.
    #[serde(skip)]
    pub unset: BTreeMap<String, String>,

    /// Settings that no sampler reads.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// The numbers that Python writes and JSON does not have.
const NOT_JSON: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The default of `num_train_timesteps`.
const TRAIN_TIMESTEPS: usize = 1000;

impl SchedulerConfig {
    /// Parses the text of a `scheduler_config.json`. A boolean setting that is `null` is false, as diffusers takes it.
    ///
    /// Python writes `NaN` and infinite numbers, which JSON does not have. `lambda_min_clipped` is `-Infinity` in many files,
    /// its default; such a value of any other setting is kept in [`unset`](Self::unset), as `null` is.
    ///
    /// # Errors
    /// The text is not JSON, or a value has another type than its setting.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut settings: Map<String, Value> = serde_json::from_str(&with_quoted_infinities(text))?;
        let mut unset = BTreeMap::new();
        for (name, value) in &mut settings {
            let written = match value {
                Value::Null => "null",
                Value::String(text) => match NOT_JSON.into_iter().find(|number| text == number) {
                    Some(number) => number,
                    None => continue,
                },
                _ => continue,
            };
            *value = match written {
                "null" if known_settings::is_boolean(name) => Value::Bool(false),
                _ => Value::Null,
            };
            if (name.as_str(), written) != ("lambda_min_clipped", "-Infinity") {
                unset.insert(name.clone(), written.to_owned());
            }
        }
        let config: Self = serde_path_to_error::deserialize(Value::Object(settings))?;
        Ok(Self { unset, ..config })
    }

    /// Whether the file says something of the setting `name`, whose value is read as `value`.
    pub(crate) fn says<T>(&self, name: &str, value: Option<T>) -> bool {
        value.is_some() || self.unset.contains_key(name)
    }

    /// Whether the model was trained with rectified flow.
    pub fn is_flow(&self) -> bool {
        self.process() == NoiseProcess::Flow
    }

    /// The noise process of the model's training.
    pub(crate) fn process(&self) -> NoiseProcess {
        let class = self.class_name.as_deref().unwrap_or_default();
        let flow = self.is_flow_match()
            || self.use_flow_sigmas.unwrap_or(false)
            || self.prediction_type.as_deref() == Some("flow_prediction");
        if class.starts_with("EDM") {
            NoiseProcess::Edm
        } else if flow {
            NoiseProcess::Flow
        } else {
            NoiseProcess::Diffusion
        }
    }

    /// Whether the class is for rectified flow only.
    pub(crate) fn is_flow_match(&self) -> bool {
        self.class_name
            .as_deref()
            .is_some_and(|class| class.starts_with("FlowMatch"))
    }

    /// How many of `steps` image-to-image skips at `strength`, from 0 (the image stays) to 1 (nothing of it
    /// stays). Rounded as in diffusers' pipelines; those of Stable Diffusion 3 round differently from the
    /// others.
    #[doc(alias = "get_timesteps")]
    pub fn skipped_steps(&self, steps: usize, strength: f64) -> usize {
        let all = steps as f64;
        let kept = (all * strength.clamp(0.0, 1.0)).min(all);
        if self.is_flow() {
            (all - kept) as usize
        } else {
            steps - kept as usize
        }
    }

    /// The number of training timesteps.
    pub fn train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(TRAIN_TIMESTEPS)
    }

    /// The schedule that the file sets, if the scheduler class of `kind` has that setting: diffusers ignores
    /// it in other classes.
    pub(crate) fn configured_schedule(&self, kind: SamplerKind) -> ScheduleKind {
        let set = |name: &str, flag: Option<bool>| {
            flag.unwrap_or(false) && known_settings::has(kind.diffusers_class(), name)
        };
        if set("use_karras_sigmas", self.use_karras_sigmas) {
            ScheduleKind::Karras
        } else if set("use_lu_lambdas", self.use_lu_lambdas)
            || set("use_exponential_sigmas", self.use_exponential_sigmas)
        {
            ScheduleKind::Exponential
        } else if set("use_beta_sigmas", self.use_beta_sigmas) {
            ScheduleKind::Beta
        } else {
            ScheduleKind::Normal
        }
    }

    /// The timestep shift of rectified flow: `shift` or `flow_shift`, that of the configuration's class
    /// first.
    pub(crate) fn configured_shift(&self) -> f64 {
        let (first, second) = if self.is_flow_match() {
            (self.shift, self.flow_shift)
        } else {
            (self.flow_shift, self.shift)
        };
        first.or(second).unwrap_or(1.0)
    }

    /// Refuses a setting that `kind` should obey and does not, or that no scheduler class has.
    pub(crate) fn check_settings(&self, kind: SamplerKind) -> Result<(), Refusal> {
        self.check_unset(kind)?;
        known_settings::check(&self.others, kind.diffusers_class())
    }

    /// The settings of rectified flow, without those that choose a schedule.
    ///
    /// # Errors
    /// A setting is not supported.
    pub(crate) fn flow(&self) -> Result<FlowMatchEulerConfig, Refusal> {
        let default = FlowMatchEulerConfig::default();
        let config = FlowMatchEulerConfig {
            num_train_timesteps: self.train_timesteps(),
            shift: self.configured_shift(),
            use_dynamic_shifting: self.use_dynamic_shifting.unwrap_or(false),
            base_shift: self.base_shift,
            max_shift: self.max_shift,
            base_image_seq_len: self.base_image_seq_len,
            max_image_seq_len: self.max_image_seq_len,
            time_shift_type: self.time_shift_type.clone().unwrap_or(default.time_shift_type),
            invert_sigmas: self.invert_sigmas.unwrap_or(false),
            shift_terminal: self.shift_terminal,
            ..default
        };
        match config.unsupported() {
            Some(reason) => Err(Refusal::Flow(reason)),
            None => Ok(config),
        }
    }
}

/// `text` with the numbers of [`NOT_JSON`] put into quotation marks, outside of strings.
fn with_quoted_infinities(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut quoted = false;
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            result.push('"');
        }
        if quoted {
            result.push_str(part);
        } else {
            let quoted = part
                .replace("NaN", r#""NaN""#)
                .replace("Infinity", r#""Infinity""#);
            result.push_str(&quoted.replace(r#"-"Infinity""#, r#""-Infinity""#));
        }
        // An escaped quotation mark does not end a string.
        let escapes = part.bytes().rev().take_while(|&byte| byte == b'\\').count();
        quoted = if quoted { escapes % 2 == 1 } else { true };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SchedulerConfig {
        SchedulerConfig::parse(text).unwrap()
    }

    #[test]
    fn what_python_writes_is_read() {
        let config = read(
            r#"{"lambda_min_clipped": -Infinity, "prediction_type": "a \"-Infinity", "steps_offset": 1}"#,
        );
        assert_eq!(config.lambda_min_clipped, None);
        assert!(config.unset.is_empty());
        assert_eq!(config.prediction_type.as_deref(), Some("a \"-Infinity"));
        assert_eq!(config.steps_offset, Some(1));
        let text = r#"{"sigma_min": NaN, "sigma_max": Infinity, "rho": -Infinity, "shift": null, "clip_sample": null}"#;
        let config = read(text);
        let unset: Vec<_> = config
            .unset
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        let written = [
            ("clip_sample", "null"),
            ("rho", "-Infinity"),
            ("shift", "null"),
            ("sigma_max", "Infinity"),
            ("sigma_min", "NaN"),
        ];
        assert_eq!(unset, written);
        assert_eq!(config.clip_sample, Some(false));
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_the_name_of_its_setting() {
        for (text, wanted) in [
            (
                r#"{"steps_offset": "one"}"#,
                "`steps_offset`: invalid type: string \"one\"",
            ),
            (
                r#"{"trained_betas": [0.1, NaN]}"#,
                "`trained_betas[1]`: invalid type: string \"NaN\"",
            ),
            (
                r#"{"clip_sample": 1}"#,
                "`clip_sample`: invalid type: integer `1`",
            ),
        ] {
            let error = SchedulerConfig::parse(text).unwrap_err();
            assert!(matches!(error, ConfigError::Setting { .. }));
            assert!(error.to_string().starts_with(wanted), "{error}");
        }
        assert!(matches!(SchedulerConfig::parse("{"), Err(ConfigError::Json(_))));
    }

    #[test]
    fn strength_is_rounded_as_diffusers_rounds_it() {
        let diffusion = SchedulerConfig::default();
        let flow = read(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#);
        // 10 steps, strength 0.55: 5.5 of them.
        assert_eq!(diffusion.skipped_steps(10, 0.55), 5);
        assert_eq!(flow.skipped_steps(10, 0.55), 4);
        for config in [diffusion, flow] {
            assert_eq!(config.skipped_steps(20, 1.0), 0);
            assert_eq!(config.skipped_steps(20, 0.0), 20);
            assert_eq!(config.skipped_steps(20, f64::NAN.max(0.3)), 14);
            assert_eq!(config.skipped_steps(20, 7.0), 0);
        }
    }
}
