//! Runs and their stages against diffusers.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod builtin_tokenizers;
mod conditioned;
mod embeddings;
mod families;
mod images;
mod noise;
mod prompt_cache;
mod prompts;
#[path = "../reference/mod.rs"]
mod reference;
mod resampling;
mod scheduler_images;
mod settings;
#[path = "../tokenized/mod.rs"]
mod tokenized;
mod tokenizers;
mod variants;
mod weight_types;
