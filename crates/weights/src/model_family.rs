//! The model family of a network or a LoRA file, recognised by the shapes of its layers.

use std::fmt;

/// A family of models that share LoRA files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelFamily {
    /// Stable Diffusion 1.x: cross-attention to 768 features.
    StableDiffusion1,
    /// Stable Diffusion 2.x: cross-attention to 1024 features.
    StableDiffusion2,
    /// SDXL: cross-attention to 2048 features.
    StableDiffusionXl,
    /// The refiner of SDXL: cross-attention to 1280 features.
    StableDiffusionXlRefiner,
    /// Stable Diffusion 3 and 3.5: joint blocks.
    StableDiffusion3 {
        /// The features of a token: 1536 for Medium, 2432 for Large. `None` where no layer shows it.
        width: Option<usize>,
    },
    /// Flux: double-stream and single-stream blocks.
    Flux,
}

impl ModelFamily {
    /// The family of a network with `layers`, or of a LoRA file that updates them: each with its name,
    /// underscores for dots, and its number of inputs.
    pub(crate) fn recognise<'a>(layers: impl Iterator<Item = (&'a str, usize)>) -> Option<Self> {
        let (mut joint, mut width, mut cross) = (false, None, None);
        for (name, inputs) in layers {
            if name.contains("single_transformer_blocks_") || name.contains("double_blocks_") {
                return Some(Self::Flux);
            }
            if name.starts_with("transformer_blocks_") || name.starts_with("joint_blocks_") {
                joint = true;
                let of_tokens = ["_attn_to_q", "_attn_to_k", "_attn_to_v", "_block_attn_qkv"];
                if of_tokens.iter().any(|end| name.ends_with(end)) {
                    width = Some(inputs);
                }
            } else if name.ends_with("_attn2_to_k") || name.ends_with("_attn2_to_v") {
                cross = Some(inputs);
            }
        }
        if joint {
            return Some(Self::StableDiffusion3 { width });
        }
        match cross? {
            768 => Some(Self::StableDiffusion1),
            1024 => Some(Self::StableDiffusion2),
            2048 => Some(Self::StableDiffusionXl),
            1280 => Some(Self::StableDiffusionXlRefiner),
            _ => None,
        }
    }

    /// Whether the two families exclude each other.
    pub(crate) fn contradicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::StableDiffusion3 { width: Some(one) }, Self::StableDiffusion3 { width: Some(other) }) => {
                one != other
            }
            (Self::StableDiffusion3 { .. }, Self::StableDiffusion3 { .. }) => false,
            (one, other) => one != other,
        }
    }
}

impl fmt::Display for ModelFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StableDiffusion1 => write!(formatter, "Stable Diffusion 1.x"),
            Self::StableDiffusion2 => write!(formatter, "Stable Diffusion 2.x"),
            Self::StableDiffusionXl => write!(formatter, "SDXL"),
            Self::StableDiffusionXlRefiner => write!(formatter, "the SDXL refiner"),
            Self::StableDiffusion3 { width: None } => write!(formatter, "Stable Diffusion 3"),
            Self::StableDiffusion3 { width: Some(width) } => {
                write!(formatter, "Stable Diffusion 3 with a width of {width}")
            }
            Self::Flux => write!(formatter, "Flux"),
        }
    }
}
