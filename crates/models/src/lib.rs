//! The networks of Stable Diffusion: text encoders, denoising networks (UNet and MM-DiT), ControlNets,
//! autoencoders, and super-resolution upscalers.
//!
//! Each network has a folder with its configuration (the network's own `config.json`), its forward pass, its
//! memory footprint and a count of its arithmetic. A forward pass is written over [`sd_weights::Blocks`] in the operations of `sd-ops`.
//! A network does not know where its weights are.

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
mod work;

pub use error::{Error, Result};
pub use footprint::{Conditioned, Footprint, Load, WeightBytes};
pub use work::Work;
