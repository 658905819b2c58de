//! The configuration of rectified flow, as diffusers' `FlowMatchEulerDiscreteScheduler` has it.

use serde::Deserialize;

/// `scheduler/scheduler_config.json` of a `FlowMatchEulerDiscreteScheduler`, as far as images depend on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct FlowMatchEulerConfig {
    /// The scheduler class of the model.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// The number of training timesteps.
    pub num_train_timesteps: usize,
    /// The timestep shift; above 1 more steps are at high noise.
    pub shift: f64,
    /// Whether the shift depends on the image size.
    pub use_dynamic_shifting: bool,
    /// The exponent of the shift at `base_image_seq_len` patches.
    pub base_shift: Option<f64>,
    /// The exponent of the shift at `max_image_seq_len` patches.
    pub max_shift: Option<f64>,
    /// The number of patches of a small image.
    pub base_image_seq_len: Option<usize>,
    /// The number of patches of a large image.
    pub max_image_seq_len: Option<usize>,
    /// How a size-dependent shift is applied: `exponential` or `linear`.
    pub time_shift_type: String,
    /// Not supported; refused when it is set.
    pub use_karras_sigmas: Option<bool>,
    /// Not supported; refused when it is set.
    pub use_exponential_sigmas: Option<bool>,
    /// Not supported; refused when it is set.
    pub use_beta_sigmas: Option<bool>,
    /// Not supported; refused when it is set.
    pub invert_sigmas: bool,
    /// Not supported; refused when it is set.
    pub stochastic_sampling: bool,
    /// The noise level of the last step; the schedule is stretched so that it ends there.
    pub shift_terminal: Option<f64>,
}

impl Default for FlowMatchEulerConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.to_owned(),
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: None,
            max_shift: None,
            base_image_seq_len: None,
            max_image_seq_len: None,
            time_shift_type: "exponential".to_owned(),
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            invert_sigmas: false,
            stochastic_sampling: false,
            shift_terminal: None,
        }
    }
}

impl FlowMatchEulerConfig {
    const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

    /// Why this configuration is not supported; `None` if it is.
    pub fn unsupported(&self) -> Option<String> {
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        if self.class_name != Self::CLASS {
            return Some(format!("its class is {}, not {}", self.class_name, Self::CLASS));
        }
        if self.num_train_timesteps == 0 || !(self.shift.is_finite() && self.shift > 0.0) {
            return Some(format!(
                "{} timesteps with a shift of {}",
                self.num_train_timesteps, self.shift
            ));
        }
        if !matches!(self.time_shift_type.as_str(), "exponential" | "linear") {
            return Some(format!("its time_shift_type is `{}`", self.time_shift_type));
        }
        if let Some(terminal) = self.shift_terminal
            && !(0.0..1.0).contains(&terminal)
        {
            return Some(format!("its shift_terminal is {terminal}"));
        }
        let refused = [
            ("use_karras_sigmas", set(self.use_karras_sigmas)),
            ("use_exponential_sigmas", set(self.use_exponential_sigmas)),
            ("use_beta_sigmas", set(self.use_beta_sigmas)),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
        ];
        refused
            .iter()
            .find(|(_, set)| *set)
            .map(|(name, _)| format!("it sets `{name}`"))
    }

    /// The timestep shift for an image of `patches` patches; 1 changes nothing. Its exponent is linear in the
    /// number of patches: `calculate_shift` in diffusers' pipelines.
    #[doc(alias = "calculate_shift")]
    pub(crate) fn dynamic_shift(&self, patches: usize) -> f64 {
        let base_patches = self.base_image_seq_len.unwrap_or(256) as f64;
        let maximum_patches = self.max_image_seq_len.unwrap_or(4096) as f64;
        let base = self.base_shift.unwrap_or(0.5);
        let maximum = self.max_shift.unwrap_or(1.15);
        let slope = (maximum - base) / (maximum_patches - base_patches);
        let exponent = slope * (patches as f64 - base_patches) + base;
        if self.time_shift_type == "linear" {
            exponent
        } else {
            exponent.exp()
        }
    }
}
