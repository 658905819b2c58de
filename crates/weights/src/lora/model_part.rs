//! The networks of a model that LoRA files update.

/// A network that a LoRA file may update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelPart {
    /// The UNet or the transformer.
    Denoiser,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder, of SDXL and Stable Diffusion 3.
    TextEncoder2,
    /// The third text encoder, T5.
    TextEncoder3,
}
