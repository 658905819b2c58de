//! End-to-end tests: the real binary in a fresh folder.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod again;
mod background;
mod bad_input;
mod checksums;
#[cfg(feature = "cluster")]
mod cluster;
#[path = "../command/mod.rs"]
mod command;
mod completions;
mod configuration;
mod control;
mod convert;
mod crate_order;
#[cfg(unix)]
mod cuda_program;
mod device_tests;
mod devices;
mod doctor;
mod documents;
mod generating;
mod groups;
mod headers;
mod help;
mod hostile_models;
mod hostile_terminal;
mod hub;
mod image_to_image;
mod json_documents;
mod lora;
mod memory;
mod memory_readings;
mod missing;
mod models_path;
mod names;
mod output;
mod parameters;
mod plan_time;
mod presets;
mod profile;
mod progress;
mod prompts;
mod resume;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod setup;
mod source_images;
mod upscaling;
mod verify;
