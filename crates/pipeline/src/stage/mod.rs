//! The stages that a picture passes through, each with its own networks, which it gives back when it ends.

mod canvas;
mod control;
mod decode;
mod denoise;
mod encode;
mod enlarge;
mod finite;
mod guidance;
mod network;

pub use canvas::{Canvas, Mask, canvases};
pub(crate) use control::ControlNetwork;
pub(crate) use decode::Decode;
pub use decode::decode;
pub use denoise::{Denoise, GuidancePasses, Picture, Progress};
pub(crate) use denoise::{check, latent_sides, patches, texts};
pub use encode::{EncodedPrompt, encode};
pub(crate) use encode::{chunks, wanted_of};
pub(crate) use enlarge::{enlarge, rounds, upscaler};
pub(crate) use network::Network;

use candle_core::Device;

/// Whether blocks that stay in memory are read before the first pass over a network. A processor computes with the first
/// ones while those that follow are read.
fn reads_before_passes(device: &Device) -> bool {
    !device.is_cpu()
}
