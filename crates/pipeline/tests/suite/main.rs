//! Whole runs and their parts beside diffusers.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod families;
mod noise;
mod pictures;
mod prompt_cache;
mod prompts;
#[path = "../reference/mod.rs"]
mod reference;
mod resampling;
mod scheduler_pictures;
mod settings;
mod steered;
#[path = "../tokenized/mod.rs"]
mod tokenized;
mod tokenizers;
mod variants;
