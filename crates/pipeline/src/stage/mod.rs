//! The stages that a picture passes through, each with its own networks, which it gives back when it ends.

mod canvas;
mod control;
mod decode;
mod denoise;
mod encode;
mod enlarge;
mod finite;
mod network;

pub use canvas::{Canvas, Mask, canvases};
pub(crate) use control::ControlNetwork;
pub use decode::decode;
pub use denoise::{Denoise, GuidancePasses, Picture, Progress};
pub(crate) use denoise::{check, latent_sides, patches, texts};
pub(crate) use encode::chunks;
pub use encode::{EncodedPrompt, encode};
pub(crate) use enlarge::{enlarge, rounds, upscaler};
pub(crate) use network::Network;
