//! What an encoded prompt depends on.

use candle_core::Device;
use sd_weights::{FileIdentity, WeightType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::{checksummed, numerics_id};

/// Raised whenever the same encoders give other bits for the same prompt, within a version of the program.
const ENCODING: u32 = 1;

/// Everything that the bits of an encoded prompt depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PromptKey {
    encoding: u32,
    program: String,
    /// What computes, and with which instructions.
    device: String,
    weight_type: String,
    /// All prompts that were encoded together, as they were.
    prompts: Vec<String>,
    /// Tokens that a prompt is given.
    tokens: usize,
    /// Features of a token, and of a pooled prompt where there is one.
    features: (usize, Option<usize>),
    /// Layers of CLIP that are left out.
    clip_skip: usize,
    /// How much is added to the encoders of each LoRA file, which are among the files.
    lora_scales: Vec<f64>,
    /// The encoders and their tokenizers.
    files: Vec<FileIdentity>,
}

impl PromptKey {
    pub(super) fn new(
        files: &[FileIdentity],
        bundle: &Bundle,
        prompts: &[&str],
        tokens: usize,
        clip_skip: usize,
        device: &Device,
        weight_type: WeightType,
    ) -> Self {
        let encoders = bundle.family.text_encoders();
        Self {
            encoding: ENCODING,
            program: crate::VERSION.to_owned(),
            device: numerics_id::name(device),
            weight_type: format!("{weight_type:?}"),
            prompts: prompts.iter().map(|&prompt| prompt.to_owned()).collect(),
            tokens,
            features: (encoders.context_features(), encoders.pooled_features()),
            clip_skip,
            lora_scales: bundle.loras().map(|(_, choice)| choice.text_scale).collect(),
            files: files.to_vec(),
        }
    }

    /// A name for the key, in hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        // Its fields are texts and numbers, whose JSON cannot fail; two failures would only share a name.
        let text = serde_json::to_vec(self).unwrap_or_default();
        checksummed::hexadecimal(&Sha256::digest(text)[..16])
    }

    /// `[prompts, tokens, features]`
    pub(super) fn context_shape(&self) -> [usize; 3] {
        [self.prompts.len(), self.tokens, self.features.0]
    }

    /// `[prompts, features]`, where prompts are pooled.
    pub(super) fn pooled_shape(&self) -> Option<[usize; 2]> {
        Some([self.prompts.len(), self.features.1?])
    }
}
