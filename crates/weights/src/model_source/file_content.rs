//! What a file holds: a network of a kind, or something else that is known by its tensors.

use std::fmt;

use crate::ModelFamily;

/// What a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    /// A UNet, of a family.
    UNet(ModelFamily),
    /// The transformer of Stable Diffusion 3 and 3.5.
    Mmdit,
    /// An autoencoder.
    Vae,
    /// The text encoder CLIP-L.
    ClipL,
    /// The text encoder OpenCLIP-H.
    ClipH,
    /// The text encoder OpenCLIP-bigG.
    ClipG,
    /// The text encoder T5.
    T5,
}

/// What a file holds instead of what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileContent {
    /// A network.
    Network(NetworkKind),
    /// A LoRA.
    Lora,
    /// A ControlNet.
    ControlNet,
    /// An upscaler.
    Upscaler,
    /// Embeddings of textual inversion.
    Embedding,
    /// A part of a model that is none of these.
    Other(&'static str),
    /// None of what is known.
    Unknown,
}

impl NetworkKind {
    /// The network as a message names it.
    pub fn title(self) -> &'static str {
        match self {
            Self::UNet(_) => "a UNet",
            Self::Mmdit => "a transformer of Stable Diffusion 3",
            Self::Vae => "an autoencoder (VAE)",
            Self::ClipL => "the text encoder CLIP-L",
            Self::ClipH => "the text encoder OpenCLIP-H",
            Self::ClipG => "the text encoder OpenCLIP-bigG",
            Self::T5 => "the text encoder T5",
        }
    }
}

impl fmt::Display for FileContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Network(kind) => kind.title(),
            Self::Lora => "a LoRA",
            Self::ControlNet => "a ControlNet",
            Self::Upscaler => "an upscaler",
            Self::Embedding => "an embedding of textual inversion",
            Self::Other(what) => what,
            Self::Unknown => "no network that is known",
        })
    }
}
