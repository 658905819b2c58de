//! The autoencoder (VAE) between images and latents: diffusers' `AutoencoderKL`.
//!
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022. Feature maps are
//! processed in bands of rows, with group norms over the whole image: unlike VAE tiling, this is exact.

mod banded;
mod coder;
mod config;
mod decoder;
mod encoder;
mod footprint;
mod middle;
mod residual;
mod scaling;
mod work;

pub use banded::Banding;
pub use config::Config;
pub use decoder::Decoder;
pub use encoder::{Encoded, Encoder};
pub use scaling::Scaling;
