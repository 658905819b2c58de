//! Samplers and noise schedules against diffusers.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod samplers;
mod scheduler_files;
mod schedules;
