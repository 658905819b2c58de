//! The files of a tokenizer, in the layout of transformers.

use std::path::PathBuf;

use super::{BuiltInTokenizer, ModelFile};

/// The files that a tokenizer is built from.
#[derive(Debug, Clone)]
pub struct TokenizerFiles {
    /// The folder of the tokenizer. Messages show it.
    pub folder: PathBuf,
    /// `tokenizer_config.json`.
    pub config: Option<ModelFile>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<ModelFile>,
    /// The vocabulary.
    pub vocabulary: Vocabulary,
}

impl TokenizerFiles {
    /// The files of a tokenizer that is built into the binary. Nothing is decompressed until
    /// [`BuiltInTokenizer::clip_byte_pairs`] or [`BuiltInTokenizer::t5_json`] is called.
    pub fn builtin(tokenizer: BuiltInTokenizer) -> Self {
        Self {
            folder: tokenizer.shown_path(),
            config: None,
            special_tokens: None,
            vocabulary: Vocabulary::BuiltIn(tokenizer),
        }
    }
}

/// The vocabulary of a tokenizer.
#[derive(Debug, Clone)]
pub enum Vocabulary {
    /// `tokenizer.json`, which describes a whole tokenizer.
    Tokenizer(ModelFile),
    /// `vocab.json` and `merges.txt`, the byte-pair encoding of CLIP.
    BytePairs {
        /// Token ids by token.
        vocab: ModelFile,
        /// Pairs of tokens in the order in which they are merged.
        merges: ModelFile,
    },
    /// That of a tokenizer that is built into the binary, still compressed.
    BuiltIn(BuiltInTokenizer),
}
