//! What a repository or folder is used for.

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
