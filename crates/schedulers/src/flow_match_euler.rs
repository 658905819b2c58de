//! Euler steps along the straight paths of rectified flow.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024; the
//! noise levels are those of diffusers' `FlowMatchEulerDiscreteScheduler`, which shifts them twice: once when
//! it finds the smallest one and again over the chosen ones.

use candle_core::{Result, Tensor};
use serde::Deserialize;

use crate::schedule_kind::ScheduleKind;
use crate::sigmas;

/// `scheduler/scheduler_config.json`, as far as pictures depend on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct FlowMatchEulerConfig {
    /// Which scheduler the model wants.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// How many timesteps noise is divided into.
    pub num_train_timesteps: usize,
    /// Above 1 more steps are spent at high noise.
    pub shift: f64,
    /// Whether the shift depends on the picture's size.
    pub use_dynamic_shifting: bool,
    /// The exponent at `base_image_seq_len` patches.
    pub base_shift: Option<f64>,
    /// The exponent at `max_image_seq_len` patches.
    pub max_shift: Option<f64>,
    /// A small picture's patches.
    pub base_image_seq_len: Option<usize>,
    /// A large picture's patches.
    pub max_image_seq_len: Option<usize>,
    /// How a size-dependent shift is applied: `exponential` or `linear`.
    pub time_shift_type: String,
    /// Schedules that this scheduler does not draw; refused when one is set.
    pub use_karras_sigmas: Option<bool>,
    /// As above.
    pub use_exponential_sigmas: Option<bool>,
    /// As above.
    pub use_beta_sigmas: Option<bool>,
    /// As above.
    pub invert_sigmas: bool,
    /// As above.
    pub stochastic_sampling: bool,
    /// The noise level of the last step, to which all are stretched.
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

    /// Why a schedule of this configuration cannot be drawn, if it cannot.
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
}

/// The noise levels of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowMatchEuler {
    /// One more than there are steps; the last is 0.
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl FlowMatchEuler {
    /// `steps` noise levels for a picture of `patches` patches (which matters only where the configuration
    /// shifts by size).
    pub fn new(config: &FlowMatchEulerConfig, steps: usize, patches: usize) -> Self {
        Self::along(config, ScheduleKind::Normal, steps, patches)
    }

    /// The same, bent along the curve of `schedule`. `sgm_uniform` spreads the steps evenly from pure noise
    /// before they are shifted, as diffusers' pipelines for Flux do.
    pub(crate) fn along(
        config: &FlowMatchEulerConfig,
        schedule: ScheduleKind,
        steps: usize,
        patches: usize,
    ) -> Self {
        let train = config.num_train_timesteps as f32;
        let mut shifted: Vec<f64> = places(config, schedule, steps)
            .into_iter()
            .map(|place| {
                if config.use_dynamic_shifting {
                    size_shifted(place, config, patches)
                } else {
                    config.shift * place / (1.0 + (config.shift - 1.0) * place)
                }
            })
            .collect();
        if let Some(terminal) = config.shift_terminal.filter(|&terminal| terminal != 0.0) {
            stretch(&mut shifted, terminal);
        }
        let ends = (shifted.last().copied(), shifted.first().copied());
        let bent = match ends {
            (Some(least), Some(most)) => sigmas::curve(schedule, least, most, steps),
            _ => None,
        };
        let levels = bent.unwrap_or(shifted);
        let mut sigmas: Vec<f32> = levels.into_iter().map(|sigma| sigma as f32).collect();
        let timesteps = sigmas.iter().map(|sigma| sigma * train).collect();
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// What the network is told of each step's noise: `1000 * sigma`.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The noise level before each step, and 0 after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// Moves `latents` along `velocity`, the network's prediction, from the noise level before `step` to the
    /// one after it. Both in 32 bits, of one shape.
    ///
    /// # Errors
    /// The shapes differ or the device fails.
    pub fn step(&self, step: usize, latents: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let distance = self.sigmas[step + 1] - self.sigmas[step];
        latents + (velocity * f64::from(distance))?
    }
}

/// Where the steps begin on the line from the picture (0) to noise (1), before they are shifted.
fn places(config: &FlowMatchEulerConfig, schedule: ScheduleKind, steps: usize) -> Vec<f64> {
    if schedule == ScheduleKind::SgmUniform {
        // In 32 bits, as whatever is given to diffusers' scheduler from outside.
        let places = sigmas::evenly(1.0, 1.0 / steps as f64, steps).into_iter();
        return places.map(|place| f64::from(place as f32)).collect();
    }
    let train = config.num_train_timesteps as f32;
    // The configured shift also moves the smallest level, from which the steps are spread. A size-dependent
    // shift replaces it.
    let smallest = if config.use_dynamic_shifting {
        1.0 / train
    } else {
        shifted(1.0 / train, config.shift as f32)
    };
    let (highest, lowest) = (f64::from(train), f64::from(smallest * train));
    let share = |step: usize| {
        if steps > 1 {
            step as f64 / (steps - 1) as f64
        } else {
            0.0
        }
    };
    (0..steps)
        .map(|step| (highest + share(step) * (lowest - highest)) / highest)
        .collect()
}

fn shifted(sigma: f32, shift: f32) -> f32 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The shift for a picture of `patches` patches: its exponent lies on the line through the configured base
/// and maximum.
fn size_shifted(sigma: f64, config: &FlowMatchEulerConfig, patches: usize) -> f64 {
    let strength = size_shift(config, patches);
    strength / (strength + (1.0 / sigma - 1.0))
}

/// Stretches falling noise levels away from pure noise so that the last is `terminal`.
pub(crate) fn stretch(sigmas: &mut [f64], terminal: f64) {
    let Some(&last) = sigmas.last() else { return };
    let scale = (1.0 - last) / (1.0 - terminal);
    if scale > 0.0 {
        sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}

/// The shift of a picture of `patches` patches: 1 moves nothing.
pub(crate) fn size_shift(config: &FlowMatchEulerConfig, patches: usize) -> f64 {
    let base_patches = config.base_image_seq_len.unwrap_or(256) as f64;
    let maximum_patches = config.max_image_seq_len.unwrap_or(4096) as f64;
    let base = config.base_shift.unwrap_or(0.5);
    let maximum = config.max_shift.unwrap_or(1.15);
    let slope = (maximum - base) / (maximum_patches - base_patches);
    let exponent = slope * (patches as f64 - base_patches) + base;
    if config.time_shift_type == "linear" {
        exponent
    } else {
        exponent.exp()
    }
}
