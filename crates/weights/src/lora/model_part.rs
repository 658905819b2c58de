//! The networks of a model that LoRA files change.

/// A network of a model that a LoRA file may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelPart {
    /// The UNet or the transformer.
    Denoiser,
    /// The first text encoder.
    TextEncoder,
    /// The second one: of SDXL and Stable Diffusion 3.
    TextEncoder2,
    /// The third one: T5.
    TextEncoder3,
}
