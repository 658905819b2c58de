//! The networks that are in memory, and what is kept for every group of images.

use crate::stage::{Decode, Denoise, EncodedPrompt, InitLatents};

/// The networks that are in memory, of the model that is at work.
#[derive(Debug, Default)]
pub(super) struct Networks<'a> {
    pub(super) denoise: Option<Denoise<'a>>,
    pub(super) decode: Option<Decode<'a>>,
}

impl Networks<'_> {
    /// Drops all of them, unless they `stay`.
    pub(super) fn drop_unless(&mut self, stay: bool) {
        if !stay {
            *self = Self::default();
        }
    }
}

/// What is computed once and kept for every group of images.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The encoded prompts of each model, once they are there.
    pub(super) prompts: Vec<Option<EncodedPrompt>>,
    /// The latents of the user's initial image.
    pub(super) init_latents: Option<InitLatents>,
}
