//! Networks against diffusers and transformers.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod controlnet;
mod hostile_upscaler;
mod mmdit;
mod mmdit_control;
mod naming;
#[path = "../random/mod.rs"]
mod random;
#[path = "../reference/mod.rs"]
mod reference;
mod text;
mod unet;
mod upscaler;
mod vae;
