//! The networks in memory, and what is cached between groups of images.

use crate::stage::{Decode, Denoise, EncodedPrompt, InitLatents};

/// The networks of the current model that are in memory.
#[derive(Debug, Default)]
pub(super) struct Networks<'a> {
    pub(super) denoise: Option<Denoise<'a>>,
    pub(super) decode: Option<Decode<'a>>,
}

impl Networks<'_> {
    /// Drops all networks, unless they `stay`.
    pub(super) fn drop_unless(&mut self, stay: bool) {
        if !stay {
            *self = Self::default();
        }
    }
}

/// What is computed once and cached between groups of images.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The encoded prompts of each model, if cached.
    pub(super) prompts: Vec<Option<EncodedPrompt>>,
    /// The latents of the user's initial image.
    pub(super) init_latents: Option<InitLatents>,
}
