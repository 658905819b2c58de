//! Schedulers: which noise levels a picture passes through, and how a prediction of the network moves it from
//! one to the next.
//!
//! A [`Sampler`] is made of a model's [`SchedulerConfig`], a [`SamplerKind`] and a [`ScheduleKind`]; it leads
//! pictures, each a [`Trajectory`], one evaluation of the network at a time. Each method lies in a file of
//! its own over the noise levels that its family counts in: `exploding`, `alphas`, `preserving` and `flow`.

mod alphas;
mod beta_distribution;
mod betas;
mod choice;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm3m_sde;
mod dpm_sde;
mod dpm_solver;
mod edm;
mod error;
mod euler;
mod exploding;
mod flow;
mod flow_match_euler;
mod flow_sigmas;
mod heun;
mod kind;
mod lcm;
mod level;
mod lms;
mod method;
mod model_sampler;
mod multistep;
mod pndm;
mod pndm_runge_kutta;
mod preserving;
mod process;
mod repairs;
mod sampler;
mod schedule_kind;
mod settings;
mod setup;
mod sigmas;
mod singlestep;
mod tcd;
mod trajectory;
mod unipc;

pub use choice::SamplerChoice;
pub use config::SchedulerConfig;
pub use error::{Refusal, StepError};
pub use flow_match_euler::{FlowMatchEuler, FlowMatchEulerConfig};
pub use kind::{SamplerKind, UnknownName};
pub use method::NoiseSource;
pub use repairs::Repairs;
pub use sampler::Sampler;
pub use schedule_kind::ScheduleKind;
pub use trajectory::Trajectory;
