//! Noise from seeds, equal to torch's on the CPU, so that a seed gives the same image as in diffusers.

mod mersenne_twister;
mod normal;

pub use mersenne_twister::MersenneTwister;
pub use normal::NormalStream;
