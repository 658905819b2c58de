//! Noise from seeds, equal to torch's on the CPU or on NVIDIA GPUs, so that a seed gives the same image as in diffusers
//! or in stable-diffusion-webui.

mod image_noise;
mod mersenne_twister;
mod normal;
mod philox;
mod seeds;

pub use image_noise::{ImageNoise, NoiseSource};
pub use mersenne_twister::MersenneTwister;
pub use normal::NormalStream;
pub use philox::PhiloxStream;
pub use seeds::Seeds;
