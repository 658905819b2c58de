//! A network of a model, with the namings that its LoRA files use.

use super::ModelPart;
use crate::{Checkpoint, Naming};

/// A network of a model that a LoRA file may update.
#[derive(Debug, Clone, Copy)]
pub struct LoraNetwork<'a> {
    /// Which of the model's networks it is.
    pub part: ModelPart,
    /// Its tensors.
    pub checkpoint: &'a Checkpoint,
    /// The namings that LoRA files for it use, beside that of diffusers and transformers.
    pub namings: &'a [Naming],
}

/// A network of any family that is known: a naming has no names for networks of other families.
impl<'a> From<(ModelPart, &'a Checkpoint)> for LoraNetwork<'a> {
    fn from((part, checkpoint): (ModelPart, &'a Checkpoint)) -> Self {
        Self {
            part,
            checkpoint,
            namings: match part {
                ModelPart::Denoiser => &[Naming::UNET, Naming::MMDIT],
                ModelPart::TextEncoder | ModelPart::TextEncoder2 => Naming::ALL_OF_CLIP,
                ModelPart::TextEncoder3 => &[],
            },
        }
    }
}
