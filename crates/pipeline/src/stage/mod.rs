//! The stages that a picture passes through, each with its own networks, which it gives back when it ends.

mod decode;
mod denoise;
mod encode;
mod finite;

pub use decode::decode;
pub(crate) use denoise::check_size;
pub use denoise::{Denoise, GuidancePasses};
pub use encode::{EncodedPrompt, encode};
