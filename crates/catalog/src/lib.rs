//! Resolves names to models: presets, the user's configuration, local files, the hub.
//!
//! [`Settings`] are one layer of what can be set beside the prompt. [`Layers`] puts the command line over a
//! preset over the user's [`Configuration`]; without a preset or a model it chooses the best preset that fits
//! this machine. [`Resolved`] resolves each name of the settings once: to a local path, to the hub's cache,
//! or to the hub, from which the [`Catalog`] downloads it. The result is the
//! [`Request`](sd_pipeline::Request) for the pipeline.
//!
//! The crate knows no command line and no terminal. A [`FetchObserver`] observes and stops downloads; an
//! [`Error`] carries the user's names.

mod best;
mod catalog;
mod configuration;
mod controlnet;
mod demo;
mod demo_language;
mod devices;
mod embedding;
mod error;
mod fetch;
mod generation_parameters;
mod known_hash;
mod layers;
mod local;
mod lora;
mod model_of_run;
mod models_path;
mod names;
mod outline;
mod output;
pub mod parse;
pub mod presets;
mod resolved;
mod samplers;
mod seed_choice;
mod settings;
mod similar;
pub mod styles;
mod upscaler;
mod user_dirs;
mod verifiable;
mod wanted;

pub use catalog::{Catalog, Location};
pub use configuration::Configuration;
pub use controlnet::ControlImage;
pub use demo::model as demo_model;
pub use demo_language::{OutsideLanguage, outside_language};
pub use devices::Devices;
pub use error::{Error, MeantSampler, Result};
pub use fetch::FetchObserver;
pub use generation_parameters::{GenerationParameters, Given, ParametersSource, Unmet, parameters_text};
pub use known_hash::KnownHash;
pub use layers::{Layered, Layers};
pub use local::is_complete_folder;
pub use model_of_run::model_of_run;
pub use models_path::{KeptFile, ModelsPath};
pub use names::reference;
pub use presets::AUTO;
pub use resolved::{Inputs, Resolved};
pub use sd_files::read_text_at_most as read_text;
pub use seed_choice::SeedChoice;
pub use settings::Settings;
pub use similar::similar;
pub use user_dirs::user_dirs;
pub use verifiable::Verifiable;
pub use wanted::{Wanted, wanted};
