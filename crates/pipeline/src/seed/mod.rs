//! From a seed to noise: the very numbers that torch draws on a processor, so that a seed means the same
//! image here as in diffusers.

mod mersenne_twister;
mod normal;

pub use mersenne_twister::MersenneTwister;
pub use normal::NormalStream;
