//! The tokenizers of CLIP and T5: from prompts to token ids.

mod cache;
mod embedding_words;
mod file;
mod lazy;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use sd_weights::{BuiltInTokenizer, ModelFile, ModelSource, Vocabulary};
use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::{Error, Result};
pub(crate) use cache::Tokenizers;
use embedding_words::EmbeddingWords;
pub use embedding_words::{Piece, has_word};
use lazy::LazyTokenizer;

/// A length limit above this means that there is none.
const LONGEST_LIMIT: f64 = 1e6;
/// The only supported side of padding and truncation.
const RIGHT: &str = "right";
/// CLIP's start token.
const CLIP_START: &str = "<|startoftext|>";
/// CLIP's end token.
const CLIP_END: &str = "<|endoftext|>";
/// The capacity of the tokenizer's word cache. It is thread-local and outlives the tokenizer, so it is off.
const WORDS_REMEMBERED: usize = 0;

/// Encodes prompts as rows of token ids of equal length. Clones share the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    files: Arc<OfFiles>,
    embedding_words: EmbeddingWords,
}

/// What the files of a tokenizer say.
#[derive(Debug)]
struct OfFiles {
    folder: PathBuf,
    tokenizer: LazyTokenizer,
    vocabulary_size: usize,
    padding: u32,
    /// The special tokens before and after a text.
    frame: (Vec<u32>, Vec<u32>),
    limit: Option<usize>,
}

/// A prompt as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids, padded to the requested length.
    pub ids: Vec<u32>,
    /// How many tokens of the prompt were truncated.
    pub truncated: usize,
}

/// The settings of `tokenizer_config.json` that ids depend on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
    pad_token: Option<SpecialToken>,
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    /// The side of the padding.
    padding_side: Option<String>,
    /// The side of the truncation.
    truncation_side: Option<String>,
}

/// A special token, as a string or as an object with attributes.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text, or settings with its content")]
enum SpecialToken {
    Plain(String),
    Described { content: String },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Described { content: text } => text,
        }
    }
}

impl Tokenizer {
    /// Builds the tokenizer `component` of a model, from `tokenizer.json` if there is one, else from the
    /// `vocab.json` and `merges.txt` of CLIP. One that is built into the binary is decompressed when it encodes
    /// its first text.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn open(source: &dyn ModelSource, component: &str) -> Result<Self> {
        let files = source.tokenizer(component)?;
        let json = |file: Option<ModelFile>| -> Result<TokenizerConfig> {
            Ok(match file {
                Some(file) => file.json()?,
                None => TokenizerConfig::default(),
            })
        };
        let config = json(files.config)?;
        let special = json(files.special_tokens)?;
        let folder = files.folder;
        let bad = |reason: String| Error::Tokenizer {
            folder: folder.clone(),
            reason,
        };

        let wrong = |name, value: &str, known: &str| Error::TokenizerSetting {
            folder: folder.clone(),
            name,
            value: value.to_owned(),
            known: known.to_owned(),
        };
        for (name, side) in [
            ("padding_side", &config.padding_side),
            ("truncation_side", &config.truncation_side),
        ] {
            if let Some(side) = side.as_deref().filter(|side| *side != RIGHT) {
                return Err(wrong(name, side, RIGHT));
            }
        }
        let [start_token, end_token] = [
            config.bos_token.as_ref().or(special.bos_token.as_ref()),
            config.eos_token.as_ref().or(special.eos_token.as_ref()),
        ]
        .map(|token| token.map(SpecialToken::text));

        let padding_token = config.pad_token.as_ref().or(special.pad_token.as_ref());
        let (mut tokenizer, fallback) = match files.vocabulary {
            Vocabulary::Tokenizer(described) => {
                let tokenizer = file::tokenizer(&described.bytes)
                    .map_err(|reason| bad(format!("tokenizer.json: {reason}")))?;
                (tokenizer, "<pad>")
            }
            Vocabulary::BytePairs { vocab, merges } => {
                let vocabulary: Vocab = vocab.json()?;
                let merges =
                    String::from_utf8(merges.bytes).map_err(|error| bad(format!("merges.txt: {error}")))?;
                let unknown = config.unk_token.as_ref().or(special.unk_token.as_ref());
                let special = SpecialTokens {
                    start: CLIP_START,
                    end: CLIP_END,
                    unknown: unknown.map_or(CLIP_END, SpecialToken::text),
                    padding: padding_token.map_or(CLIP_END, SpecialToken::text),
                };
                let tokenizer = clip(vocabulary, parse_merges(&merges), special)
                    .map_err(|error| bad(error.to_string()))?;
                (tokenizer, CLIP_END)
            }
            Vocabulary::BuiltIn(tokenizer) => return Ok(Self::built_in(folder, tokenizer)),
        };
        let padding_token = padding_token.map_or(fallback, SpecialToken::text);
        let padding = tokenizer.token_to_id(padding_token).ok_or_else(|| {
            bad(format!(
                "its padding token `{padding_token}` is not in its vocabulary"
            ))
        })?;
        // Padding and truncation are done here, whatever the file says.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| bad(error.to_string()))?;
        let around = tokenizer
            .encode_fast("", true)
            .map_err(|error| bad(error.to_string()))?;
        let (before, after) = around.get_ids().split_at(around.len().saturating_sub(1));
        let frame = (before.to_vec(), after.to_vec());
        for (name, token, framed) in [
            ("bos_token", start_token, before),
            ("eos_token", end_token, after),
        ] {
            // transformers takes the special tokens from the settings if its tokenizer class adds them.
            if let (Some(token), &[id]) = (token, framed)
                && tokenizer.token_to_id(token) != Some(id)
            {
                return Err(wrong(name, token, &tokenizer.id_to_token(id).unwrap_or_default()));
            }
        }
        let limit = config
            .model_max_length
            .filter(|limit| (1.0..LONGEST_LIMIT).contains(limit));
        let ids = tokenizer.get_vocab(true).into_values();
        Ok(Self::of(OfFiles {
            vocabulary_size: ids.max().map_or(0, |largest| largest as usize + 1),
            folder,
            tokenizer: LazyTokenizer::Built(tokenizer),
            padding,
            frame,
            limit: limit.map(|limit| limit as usize),
        }))
    }

    /// The `tokenizer` of the binary. Messages show `folder`.
    fn built_in(folder: PathBuf, tokenizer: BuiltInTokenizer) -> Self {
        let ids = tokenizer.special_ids();
        Self::of(OfFiles {
            folder,
            tokenizer: LazyTokenizer::built_in(tokenizer),
            vocabulary_size: ids.count,
            padding: ids.padding,
            frame: (Vec::from_iter(ids.start), vec![ids.end]),
            limit: Some(tokenizer.longest()),
        })
    }

    fn of(files: OfFiles) -> Self {
        Self {
            files: Arc::new(files),
            embedding_words: EmbeddingWords::default(),
        }
    }

    /// The folder of the tokenizer.
    pub fn folder(&self) -> &std::path::Path {
        &self.files.folder
    }

    /// The model's longest sequence, if the configuration has one.
    pub fn limit(&self) -> Option<usize> {
        self.files.limit
    }

    /// One more than the largest id.
    pub fn vocabulary_size(&self) -> usize {
        self.files.vocabulary_size
    }

    /// The special tokens before and after a text: one each for CLIP, none and one for T5.
    pub fn frame(&self) -> (&[u32], &[u32]) {
        (&self.files.frame.0, &self.files.frame.1)
    }

    /// The padding token.
    pub fn padding(&self) -> u32 {
        self.files.padding
    }

    /// CLIP's token of a comma at the end of a word.
    ///
    /// # Errors
    /// The tokenizer is built into the binary, and damaged.
    pub fn comma(&self) -> Result<Option<u32>> {
        Ok(self.files.tokenizer.get(&self.files.folder)?.token_to_id(",</w>"))
    }

    /// Makes the word `word` of a text stand for the tokens of `ids`, as textual inversion does. Case does not
    /// matter.
    pub fn add_word(&mut self, word: &str, ids: Range<u32>) {
        self.embedding_words.add(word, ids);
    }

    /// `text` in pieces: the words that were added, and what is between them.
    pub fn pieces<'text>(&self, text: &'text str) -> Vec<Piece<'text>> {
        self.embedding_words.pieces(text)
    }

    /// The ids of `text` without special tokens, in any number. Words that were added are not looked for.
    ///
    /// # Errors
    /// The tokenizer cannot encode this text.
    pub fn words(&self, text: &str) -> Result<Vec<u32>> {
        self.encoding(text, false)
    }

    /// The ids of `text` with special tokens, truncated and padded to `length`. The end of the text is
    /// truncated, never a special token.
    ///
    /// # Errors
    /// The tokenizer cannot encode this text.
    pub fn encode(&self, text: &str, length: usize) -> Result<Tokens> {
        let mut ids = self.encoding(text, true)?;
        let truncated = ids.len().saturating_sub(length);
        if truncated > 0 {
            let closing = self.files.frame.1.len();
            let tail = ids.split_off(ids.len() - closing);
            ids.truncate(length.saturating_sub(closing));
            ids.extend(tail);
        }
        ids.resize(length, self.files.padding);
        Ok(Tokens { ids, truncated })
    }

    fn encoding(&self, text: &str, framed: bool) -> Result<Vec<u32>> {
        let encoding = self
            .files
            .tokenizer
            .get(&self.files.folder)?
            .encode_fast(text, framed);
        let encoding = encoding.map_err(|error| Error::Tokenizer {
            folder: self.files.folder.clone(),
            reason: error.to_string(),
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// CLIP's special tokens, which match themselves anywhere in a text.
#[derive(Debug, Clone, Copy)]
struct SpecialTokens<'a> {
    start: &'a str,
    end: &'a str,
    unknown: &'a str,
    /// The second tokenizer of Stable Diffusion 3 pads with `!`, which therefore matches inside words too.
    padding: &'a str,
}

/// CLIP's byte-level BPE of lower-cased words.
///
/// Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, as
/// implemented by transformers' `CLIPTokenizer`.
fn clip(
    vocabulary: Vocab,
    merges: Merges,
    special: SpecialTokens<'_>,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    const WORDS: &str =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    const SPACES: &str = r"\s+";

    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(special.unknown.to_owned())
        .cache_capacity(WORDS_REMEMBERED)
        .build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(SPACES.to_owned()),
        " ",
    )?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::Lowercase(Lowercase),
    ])))?;
    let words = Split::new(
        SplitPattern::Regex(WORDS.to_owned()),
        SplitDelimiterBehavior::Removed,
        true,
    )?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    let id = |token: &str| {
        tokenizer
            .token_to_id(token)
            .ok_or_else(|| format!("`{token}` is not in its vocabulary"))
    };
    let SpecialTokens {
        start,
        end,
        unknown,
        padding,
    } = special;
    let (start_id, end_id) = (id(start)?, id(end)?);
    // As CLIP's settings have it, all but another padding match the text in lower case.
    let mut tokens: Vec<AddedToken> = [start, end, unknown]
        .map(|token| AddedToken::from(token, true).normalized(true))
        .into();
    if ![start, end, unknown].contains(&padding) {
        tokens.push(AddedToken::from(padding, true));
    }
    tokenizer.add_special_tokens(tokens)?;
    let around = RobertaProcessing::new((end.to_owned(), end_id), (start.to_owned(), start_id));
    tokenizer.with_post_processor(Some(around.trim_offsets(false).add_prefix_space(false)));
    Ok(tokenizer)
}

/// The merges of `merges.txt`, one per line after a version line.
fn parse_merges(text: &str) -> Merges {
    text.lines()
        .filter(|line| !line.starts_with("#version"))
        .filter_map(|line| line.split_once(' '))
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}
