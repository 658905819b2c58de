//! From names to models: presets, the user's configuration, files on this machine, the hub.
//!
//! [`Settings`] are one layer of what can be set beside the prompt. [`Layers`] puts what was typed over a
//! preset over the user's [`Configuration`]; where nothing names a preset or a model, the best preset that
//! fits this machine is looked for. [`Resolved`] finds each name of the settings once: here, in the cache of
//! the hub, or on the hub, where the [`Catalog`] fetches it from. The result is the
//! [`Request`](sd_pipeline::Request) that the pipeline runs.
//!
//! The crate knows no command line and no terminal. Downloads are watched and stopped through a
//! [`FetchObserver`]; an [`Error`] carries the names that the user gave.

mod best;
mod catalog;
mod configuration;
mod controlnet;
mod demo;
mod error;
mod fetch;
mod layers;
mod local;
mod lora;
mod names;
pub mod parse;
pub mod presets;
mod resolved;
mod samplers;
mod settings;
pub mod styles;
mod upscaler;
mod user_dirs;
mod wanted;

pub use catalog::{Catalog, Location};
pub use configuration::Configuration;
pub use controlnet::ControlImage;
pub use demo::model as demo_model;
pub use error::{Error, Result};
pub use fetch::FetchObserver;
pub use layers::{AUTO, Layered, Layers};
pub use local::is_complete_folder;
pub use names::reference;
pub use resolved::{Inputs, Resolved};
pub use settings::Settings;
pub use user_dirs::user_dirs;
pub use wanted::{Wanted, wanted};
