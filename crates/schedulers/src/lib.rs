//! Samplers and noise schedules: which noise levels the latents of an image pass through, and how a
//! prediction of the network moves them from one level to the next.
//!
//! A [`Sampler`] is built from a model's [`SchedulerConfig`] (`scheduler_config.json`), a [`SamplerKind`] and
//! a [`ScheduleKind`]. It advances images, each a [`SamplerState`], by one evaluation of the network at a
//! time. Every sampler follows a scheduler class of diffusers, or a function of k-diffusion where diffusers
//! has none.
//!
//! - `config`: the configuration, its defaults, and what is refused because no sampler obeys it;
//! - `levels`: noise levels and timesteps of a run, one file per parameterization (variance exploding,
//!   variance preserving, `alphas_cumprod`, rectified flow, EDM);
//! - `solvers`: one file per sampling method, with the step from one level to the next.

mod config;
mod error;
mod levels;
mod noise_process;
mod sampler;
mod sampler_choice;
mod sampler_kind;
mod sampler_state;
mod schedule_kind;
mod solvers;
mod unknown_name;
mod weighted_sum;

pub use config::SchedulerConfig;
pub use config::flow_match::FlowMatchEulerConfig;
pub use config::repairs::Repairs;
pub use error::{ConfigError, Refusal, StepError};
pub use levels::flow_match_euler::FlowMatchEuler;
pub use sampler::Sampler;
pub use sampler_choice::SamplerChoice;
pub use sampler_kind::SamplerKind;
pub use sampler_state::SamplerState;
pub use schedule_kind::ScheduleKind;
pub use solvers::NoiseSource;
pub use unknown_name::UnknownName;
