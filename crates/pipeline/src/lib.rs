//! From a request to an image: recipes, stages, seeds, saving.
//!
//! An image travels one way: a [`Request`] becomes a [`Recipe`] in which every setting is known; a
//! [`Bundle`](bundle::Bundle) opens the model's files without reading a weight; a [`Plan`](plan::Plan)
//! assigns memory to every stage; the [`stage`]s encode the prompt, denoise and decode, and free what they
//! held; [`save`] writes the image and its metadata. An [`Engine`] runs requests in this way, one after
//! another, and decides what stays in memory between them.

pub mod bundle;
mod checksummed;
mod choices;
mod clock;
pub mod components;
pub mod control;
mod crash_point;
mod culprit;
pub mod device;
mod device_budget;
mod engine;
mod error;
mod event;
mod failure;
pub mod family;
mod finite;
mod fsync;
mod identity;
mod image_size;
mod loaded;
mod machine;
mod measured_rates;
pub mod memory;
mod named;
mod numerics_id;
mod oom_retry;
mod pipeline_class;
pub mod plan;
mod preview;
pub mod profile;
pub mod prompt;
mod prompt_cache;
mod recipe;
mod request;
mod request_cache;
pub mod resume;
mod run;
pub mod save;
pub mod seed;
mod share;
pub mod source_image;
pub mod stage;
mod stage_progress;
mod summary;
pub mod tokenizer;
pub mod upscale;
mod user_dirs;

pub use bundle::FamilyDefaults;
pub use choices::Choices;
pub use culprit::{AddedLora, Culprit};
pub use engine::Engine;
pub use error::{Error, Result};
pub use event::{Event, Interrupt, Observer, SavedImage};
pub use failure::{Failure, Warning};
pub use image_size::{AspectRatio, BadSize, ImageSize, SizeChoice};
pub use loaded::DeviceMemory;
pub use machine::{DeviceKind, DeviceReport, Machine, UsableDevice};
pub use numerics_id::cpu as cpu_numerics_id;
pub use preview::Preview;
pub use recipe::{DenoisingRange, Img2Img, Recipe};
pub use request::{
    ControlChoice, ControlKind, DeviceChoice, EmbeddingChoice, GuidanceScale, InitImage, LoraChoice,
    ModelChoice, Names, Recommended, RefinerChoice, Request, Strength, TypeChoice, UpscaleChoice,
};
pub use run::{PlannedRequest, Planner, plan, planned};
pub use sd_memory::{Bytes, DeviceInfo, Limit};
pub use sd_models::Error as ModelError;
pub use sd_schedulers as scheduler;
pub use sd_weights::{
    BlockCount, ElementType, EmbeddedFile, Error as WeightsError, FileContent, MetalGpu, MetalUnavailable,
    ModelFiles, ModelFolder, NetworkFiles, Prediction, adapter_settings, disk_rate,
};
pub use share::Share;
pub use stage_progress::StageProgress;
pub use summary::{Budgets, Summaries, Summary};
pub use user_dirs::UserDirs;

/// The conversion of models between their forms.
pub mod convert {
    pub use sd_weights::{Conversion, ConversionProgress, ConversionReport, Encoding, FileLayout};
}

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
