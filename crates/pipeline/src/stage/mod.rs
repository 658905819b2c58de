//! The stages that a picture passes through, each with its own networks, which it gives back when it ends.

mod control;
mod decode;
mod denoise;
mod encode;
mod finite;
mod guidance;
mod init_latents;
mod network;
mod upscale;

pub(crate) use control::ControlNetwork;
pub(crate) use decode::Decode;
pub use decode::decode;
pub use denoise::{CfgMode, Denoise, Picture, Progress};
pub(crate) use denoise::{check, latent_sides, patches, texts};
pub use encode::{EncodedPrompt, encode};
pub(crate) use encode::{chunks, wanted_of};
pub use init_latents::{InitLatents, Mask, encode_init_images};
pub(crate) use network::Network;
pub(crate) use upscale::{rounds, upscale, upscaler};

use candle_core::Device;

/// Whether blocks that stay in memory are read before the first pass over a network. A processor computes with the first
/// ones while those that follow are read.
fn reads_before_passes(device: &Device) -> bool {
    !device.is_cpu()
}
