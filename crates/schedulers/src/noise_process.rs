//! The forward processes with which models are trained: how noise is added to training images.

/// The forward (noising) process of a model's training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoiseProcess {
    /// Discrete timesteps with a table of betas: Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    Diffusion,
    /// Straight lines from image to noise: Esser et al., "Scaling Rectified Flow Transformers for
    /// High-Resolution Image Synthesis", 2024.
    Flow,
    /// Any standard deviation, with a preconditioned network: Karras et al., "Elucidating the Design Space of
    /// Diffusion-Based Generative Models", 2022 (EDM).
    Edm,
}

impl NoiseProcess {
    /// How messages call the models that are trained with it.
    pub(crate) fn models(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion models",
            Self::Flow => "models of rectified flow",
            Self::Edm => "models preconditioned as EDM does",
        }
    }
}
