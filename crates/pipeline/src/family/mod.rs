//! The families of models: for each its networks, its text encoders, and how prompts become conditioning.

mod denoiser;
mod encoded_prompt;
mod sd3;
mod unet;

pub use denoiser::{ConditioningInputs, Denoiser, DenoiserInput};
pub use encoded_prompt::EncodedPrompt;
pub(crate) use sd3::Sd3Denoiser;
pub(crate) use unet::UNetDenoiser;
