//! The stages that a picture passes through, each with its own networks, which it gives back when it ends.

mod decode;
mod denoise;
mod encode;
mod finite;

pub use decode::decode;
pub use denoise::{Denoise, Denoised, GuidancePasses};
pub(crate) use denoise::{check_size, latent_sides, patches};
pub use encode::{EncodedPrompt, encode};
