//! The autoencoder between pictures and latents: diffusers' `AutoencoderKL`.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022.

mod bands;
mod config;
mod decoder;
mod encoder;
mod footprint;
mod middle;
mod residual;

pub use bands::Banding;
pub use config::Config;
pub use decoder::Decoder;
pub use encoder::{Encoded, Encoder};
