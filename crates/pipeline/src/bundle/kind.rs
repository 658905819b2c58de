//! What a repository, a folder or a file is used for.

/// What a repository is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model in the diffusers layout.
    Model,
    /// A ControlNet.
    ControlNet,
    /// A LoRA file.
    Lora,
    /// An upscaling network.
    Upscaler,
}

impl Kind {
    /// The name of the kind.
    pub fn title(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::ControlNet => "ControlNet",
            Self::Lora => "LoRA",
            Self::Upscaler => "upscaler",
        }
    }
}

/// What a file among those of other programs is used as. Their folders are sorted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A model, or its denoising network alone.
    Model,
    /// A LoRA.
    Lora,
    /// A ControlNet.
    ControlNet,
    /// An autoencoder.
    Vae,
    /// A text encoder.
    TextEncoder,
    /// An upscaling network.
    Upscaler,
    /// An embedding of textual inversion.
    Embedding,
}

impl FileKind {
    /// All kinds, in the order of lists.
    pub const ALL: [Self; 7] = [
        Self::Model,
        Self::Lora,
        Self::ControlNet,
        Self::Vae,
        Self::TextEncoder,
        Self::Upscaler,
        Self::Embedding,
    ];

    /// The name of the kind.
    pub fn title(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Lora => "LoRA",
            Self::ControlNet => "ControlNet",
            Self::Vae => "VAE",
            Self::TextEncoder => "text encoder",
            Self::Upscaler => "upscaler",
            Self::Embedding => "embedding",
        }
    }
}

impl From<Kind> for FileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Model => Self::Model,
            Kind::ControlNet => Self::ControlNet,
            Kind::Lora => Self::Lora,
            Kind::Upscaler => Self::Upscaler,
        }
    }
}
