//! The UNet of Stable Diffusion 1, 2 and XL, with the ControlNets that run beside it.

mod denoiser;

pub(crate) use denoiser::UNetDenoiser;
