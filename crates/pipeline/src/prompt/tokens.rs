//! From a prompt to token ids with weights.

use super::chunks::{Run, Token, group};
use super::emphasis::{Part, Prompt};
use crate::Result;
use crate::tokenizer::Tokenizer;

/// A row of token ids, special tokens and padding included.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// How much each counts; 1 for special tokens and padding.
    pub weights: Vec<f32>,
    /// How many tokens of the prompt had no place.
    pub cut: usize,
}

/// `prompt` in rows of `length` tokens, each of which begins and ends as a text of its own, and is padded
/// behind its end. There is at least one, and nothing is cut. A row that is full ends after a comma where one
/// is near.
///
/// A prompt of one part that fits has the ids of [`Tokenizer::encode`].
///
/// # Errors
/// The tokenizer cannot take this text.
pub fn chunks(tokenizer: &Tokenizer, prompt: &Prompt, length: usize) -> Result<Vec<WeightedTokens>> {
    let (before, after) = tokenizer.frame();
    let room = length.saturating_sub(before.len() + after.len()).max(1);
    let groups = group(&runs(tokenizer, prompt)?, room, tokenizer.comma());
    let rows = groups.into_iter();
    Ok(rows.map(|group| row(tokenizer, group, length)).collect())
}

/// `prompt` in one row of `length` tokens; what has no place is cut. Breaks are passed over.
///
/// # Errors
/// The tokenizer cannot take this text.
pub fn sequence(tokenizer: &Tokenizer, prompt: &Prompt, length: usize) -> Result<WeightedTokens> {
    let runs = runs(tokenizer, prompt)?.into_iter();
    let tokens = runs.flat_map(|run| match run {
        Run::Tokens(tokens) => tokens,
        Run::Break => Vec::new(),
    });
    Ok(row(tokenizer, tokens.collect(), length))
}

/// Gives each of `prompts` as many chunks as the longest has, the new ones without words, so that they can be
/// guided against each other.
pub fn pad_together(tokenizer: &Tokenizer, prompts: &mut [Vec<WeightedTokens>], length: usize) {
    let most = prompts.iter().map(Vec::len).max().unwrap_or(0);
    for chunks in prompts {
        chunks.resize_with(most, || row(tokenizer, Vec::new(), length));
    }
}

fn runs(tokenizer: &Tokenizer, prompt: &Prompt) -> Result<Vec<Run>> {
    let run = |part: &Part| match part {
        Part::Text { text, weight } => {
            let ids = tokenizer.words(text)?;
            Ok(Run::Tokens(ids.into_iter().map(|id| (id, *weight)).collect()))
        }
        Part::Break => Ok(Run::Break),
    };
    prompt.parts.iter().map(run).collect()
}

/// The special tokens around `tokens`, and padding behind. What has no place is cut from the end of the tokens.
fn row(tokenizer: &Tokenizer, mut tokens: Vec<Token>, length: usize) -> WeightedTokens {
    let (before, after) = tokenizer.frame();
    let room = length.saturating_sub(before.len() + after.len());
    let cut = tokens.len().saturating_sub(room);
    tokens.truncate(room);
    let plain = |ids: &[u32]| ids.iter().map(|&id| (id, 1.0)).collect::<Vec<Token>>();
    let mut framed = [plain(before), tokens, plain(after)].concat();
    framed.resize(length, (tokenizer.padding(), 1.0));
    let (ids, weights) = framed.into_iter().unzip();
    WeightedTokens { ids, weights, cut }
}
