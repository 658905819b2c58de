//! The three ways of giving noise to pictures that models are trained with.

/// How a model's training gave noise to pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoiseProcess {
    /// Over discrete timesteps with a table of betas: Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    Diffusion,
    /// Along straight lines: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    /// 2024.
    Flow,
    /// With any standard deviation, the network preconditioned: Karras et al., "Elucidating the Design Space of
    /// Diffusion-Based Generative Models", 2022 (EDM).
    Edm,
}

impl NoiseProcess {
    /// What models of it are called.
    pub(crate) fn models(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion models",
            Self::Flow => "models of rectified flow",
            Self::Edm => "models preconditioned as EDM does",
        }
    }
}
