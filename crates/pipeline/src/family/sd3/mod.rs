//! Stable Diffusion 3 and 3.5: two CLIPs and T5 condition a multimodal diffusion transformer (MMDiT).

mod denoiser;

pub(crate) use denoiser::Sd3Denoiser;
