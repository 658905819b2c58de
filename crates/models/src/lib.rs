//! The networks of Stable Diffusion: text encoders, transformers, autoencoders; and those that make pictures
//! larger.
//!
//! One folder a network, each with its configuration (the network's own `config.json`) and its forward pass,
//! written over [`sd_weights::Blocks`] in the operations of `sd-ops`. A network does not know where its
//! weights live.

mod bands;
pub mod clip;
pub mod controlnet;
mod counts;
mod error;
mod feed_forward;
mod footprint;
mod layers;
pub mod mmdit;
mod settings;
pub mod t5;
mod texts;
pub mod unet;
pub mod upscaler;
pub mod vae;

pub use error::{Error, Result};
pub use footprint::{Conditioned, Footprint, Load, WeightBytes};
