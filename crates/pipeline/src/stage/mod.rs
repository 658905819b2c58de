//! The stages of a run. Each loads its own networks, and frees them when it ends.

mod control;
mod decode;
mod denoise;
mod encode;
mod guidance;
mod init_latents;
mod upscale;

pub use crate::family::EncodedPrompt;
pub(crate) use decode::Decode;
pub use decode::decode;
pub use denoise::{CfgMode, Denoise, Progress, Sample};
pub(crate) use denoise::{check, latent_sides, patches, texts};
pub(crate) use encode::encode_with;
pub use encode::{encode, encode_each};
pub use init_latents::{InitLatents, Mask, encode_init_images};
pub(crate) use upscale::{rounds, upscale, upscaler};
