//! What a repository or folder is used for.

/// What a repository is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model in the layout of diffusers.
    Model,
    /// A ControlNet.
    ControlNet,
    /// A LoRA file.
    Lora,
    /// An upscaling network.
    Upscaler,
}

impl Kind {
    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::ControlNet => "ControlNet",
            Self::Lora => "LoRA",
            Self::Upscaler => "upscaler",
        }
    }
}
