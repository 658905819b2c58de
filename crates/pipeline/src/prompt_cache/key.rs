//! The key of an encoded prompt: everything that its bits depend on.

use candle_core::Device;
use sd_weights::{FileIdentity, WeightType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::{checksummed, numerics_id};

/// Incremented when the encoders' results change within a version of the program.
const ENCODING: u32 = 1;

/// Everything that the bits of an encoded prompt depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PromptKey {
    encoding: u32,
    program: String,
    /// The device and its instruction set.
    device: String,
    weight_type: String,
    /// All prompts that are encoded together, unchanged.
    prompts: Vec<String>,
    /// Tokens of a prompt.
    tokens: usize,
    /// Features of a token, and of a pooled prompt if there is one.
    features: (usize, Option<usize>),
    /// CLIP layers that are skipped.
    clip_skip: usize,
    /// The text encoder scale of each LoRA file; the files are among `files`.
    lora_scales: Vec<f64>,
    /// The words that stand for files of textual inversion; the files are among `files`.
    embedding_words: Vec<String>,
    /// The files of the encoders and their tokenizers.
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
            embedding_words: bundle
                .embeddings()
                .iter()
                .map(|(_, choice)| choice.name.clone())
                .collect(),
            files: files.to_vec(),
        }
    }

    /// Whether `other` is the key of other prompts of as many tokens, which are encoded in the same way.
    pub(super) fn differs_in_prompts_only(&self, other: &Self) -> bool {
        let prompts = other.prompts.clone();
        Self {
            prompts,
            ..self.clone()
        } == *other
    }

    /// The prompts that are encoded together.
    pub(super) fn prompts(&self) -> &[String] {
        &self.prompts
    }

    /// Tokens of a prompt.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The SHA-256 of the key in hexadecimal.
    pub(super) fn digest(&self) -> String {
        // Serialising strings and numbers cannot fail; two failures would only share a name.
        let text = serde_json::to_vec(self).unwrap_or_default();
        checksummed::hexadecimal(&Sha256::digest(text)[..16])
    }

    /// `[prompts, tokens, features]`
    pub(super) fn context_shape(&self) -> [usize; 3] {
        [self.prompts.len(), self.tokens, self.features.0]
    }

    /// `[prompts, features]`, if prompts are pooled.
    pub(super) fn pooled_shape(&self) -> Option<[usize; 2]> {
        Some([self.prompts.len(), self.features.1?])
    }
}
