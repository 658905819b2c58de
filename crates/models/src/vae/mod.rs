//! The autoencoder between pictures and latents: diffusers' `AutoencoderKL`.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022.

mod config;
mod decoder;
mod encoder;
mod footprint;
mod middle;
mod picture;
mod residual;
mod scaling;

pub use config::Config;
pub use decoder::Decoder;
pub use encoder::{Encoded, Encoder};
pub use picture::Banding;
pub use scaling::Scaling;
