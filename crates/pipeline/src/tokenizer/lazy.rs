//! A tokenizer that is built at once, from files, or on its first use, from the binary.

use std::path::Path;
use std::sync::OnceLock;

use sd_weights::BuiltInTokenizer;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::Vocab;

use super::{CLIP_END, CLIP_START, SpecialTokens, clip, file, parse_merges};
use crate::{Error, Result};

/// A tokenizer, or what it is built from.
#[derive(Debug)]
pub(super) enum LazyTokenizer {
    /// A tokenizer of a model's files.
    Built(Tokenizer),
    /// One that is built into the binary. Building it takes tens of milliseconds, and memory that a plan does
    /// without.
    BuiltIn {
        tokenizer: BuiltInTokenizer,
        built: OnceLock<Tokenizer>,
    },
}

impl LazyTokenizer {
    pub(super) fn built_in(tokenizer: BuiltInTokenizer) -> Self {
        Self::BuiltIn {
            tokenizer,
            built: OnceLock::new(),
        }
    }

    /// The tokenizer. Messages show `folder`.
    ///
    /// # Errors
    /// It is built into the binary, and damaged.
    pub(super) fn get(&self, folder: &Path) -> Result<&Tokenizer> {
        match self {
            Self::Built(tokenizer) => Ok(tokenizer),
            Self::BuiltIn { tokenizer, built } => match built.get() {
                Some(built) => Ok(built),
                None => {
                    // Another thread may build it at the same time; then one of the two is dropped.
                    let new = build(*tokenizer, folder)?;
                    Ok(built.get_or_init(|| new))
                }
            },
        }
    }
}

fn build(tokenizer: BuiltInTokenizer, folder: &Path) -> Result<Tokenizer> {
    let bad = |reason: String| Error::Tokenizer {
        folder: folder.to_owned(),
        reason,
    };
    match tokenizer {
        BuiltInTokenizer::T5 => file::tokenizer(&BuiltInTokenizer::t5_json()?.bytes).map_err(bad),
        BuiltInTokenizer::Clip(padding) => {
            let (vocab, merges) = BuiltInTokenizer::clip_byte_pairs()?;
            let vocabulary: Vocab = vocab.json()?;
            let merges = String::from_utf8(merges.bytes).map_err(|error| bad(error.to_string()))?;
            let special = SpecialTokens {
                start: CLIP_START,
                end: CLIP_END,
                unknown: CLIP_END,
                padding: padding.token(),
            };
            clip(vocabulary, parse_merges(&merges), special).map_err(|error| bad(error.to_string()))
        }
    }
}
