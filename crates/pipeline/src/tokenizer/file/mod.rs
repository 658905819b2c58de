//! A parser of `tokenizer.json` for the components of Stable Diffusion's tokenizers: CLIP's BPE and T5's
//! unigrams, with their normalizers, pre-tokenizers and templates.
//!
//! The `tokenizers` crate supports many more components and trusts their settings: some make it panic, others
//! take unbounded time or memory. So the file is parsed into the types below, and only checked settings reach
//! the crate. Truncation, padding and decoding of the file are ignored.

mod charsmap;
mod model;
mod normalizer;
mod pattern;
mod post_processor;
mod pre_tokenizer;

use serde::Deserialize;
use tokenizers::{AddedToken, Tokenizer};

use model::Model;
use normalizer::Normalizer;
use post_processor::PostProcessor;
use pre_tokenizer::PreTokenizer;

/// The most added tokens, and the length of the longest: T5 has about a hundred.
const MOST_ADDED: usize = 1 << 12;
const LONGEST_ADDED: usize = 1 << 8;
/// The most normalizers or pre-tokenizers in sequence.
const MOST_STEPS: usize = 16;

/// Why a file is refused.
type Refusal = String;

/// The tokenizer of the text of a `tokenizer.json`.
///
/// # Errors
/// It is invalid JSON, or has a component or a setting that is not supported.
pub(super) fn tokenizer(json: &[u8]) -> Result<Tokenizer, Refusal> {
    let file: File = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    file.build()
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl File {
    fn build(self) -> Result<Tokenizer, Refusal> {
        let mut tokenizer = Tokenizer::new(self.model.build()?);
        let said = |error: tokenizers::Error| error.to_string();
        let normalizer = self
            .normalizer
            .map(|normalizer| normalizer.build(&mut MOST_STEPS.into()));
        tokenizer.with_normalizer(normalizer.transpose()?).map_err(said)?;
        let pre_tokenizer = self
            .pre_tokenizer
            .map(|splitter| splitter.build(&mut MOST_STEPS.into()));
        tokenizer.with_pre_tokenizer(pre_tokenizer.transpose()?);
        if self.added_tokens.len() > MOST_ADDED {
            return Err(format!("it has {} added_tokens", self.added_tokens.len()));
        }
        let added = self.added_tokens.into_iter().map(Added::build);
        tokenizer
            .add_tokens(added.collect::<Result<Vec<_>, _>>()?)
            .map_err(said)?;
        if let Some(processor) = self.post_processor {
            processor.add_to(&mut tokenizer)?;
        }
        Ok(tokenizer)
    }
}

impl Added {
    fn build(self) -> Result<AddedToken, Refusal> {
        if !(1..=LONGEST_ADDED).contains(&self.content.len()) {
            return Err(format!("an added token has {} bytes", self.content.len()));
        }
        Ok(AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized))
    }
}

/// How many steps are left.
struct Steps(usize);

impl From<usize> for Steps {
    fn from(steps: usize) -> Self {
        Self(steps)
    }
}

impl Steps {
    fn take(&mut self) -> Result<(), Refusal> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| format!("it has more than {MOST_STEPS} steps one after another"))?;
        Ok(())
    }
}

fn yes() -> bool {
    true
}
