//! Token ids with weights, from a prompt and a tokenizer.

use super::chunks::{Run, Token, group};
use super::emphasis::{Part, Prompt};
use crate::Result;
use crate::tokenizer::{Piece, Tokenizer};

/// A row of token ids, special tokens and padding included.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTokens {
    /// The ids.
    pub ids: Vec<u32>,
    /// Their weights; 1 for special tokens and padding.
    pub weights: Vec<f32>,
    /// How many tokens of the prompt were truncated.
    pub truncated: usize,
}

/// Splits `prompt` into rows of `length` tokens, each with its own start and end tokens and padding. There is
/// at least one row, and nothing is truncated. A full row ends after a comma if one is near.
///
/// A prompt of one part that fits has the ids of [`Tokenizer::encode`].
///
/// # Errors
/// The tokenizer cannot encode this text.
pub fn chunks(tokenizer: &Tokenizer, prompt: &Prompt, length: usize) -> Result<Vec<WeightedTokens>> {
    let (before, after) = tokenizer.frame();
    let capacity = length.saturating_sub(before.len() + after.len()).max(1);
    let groups = group(&runs(tokenizer, prompt)?, capacity, tokenizer.comma()?);
    let rows = groups.into_iter();
    Ok(rows.map(|group| row(tokenizer, group, length)).collect())
}

/// Encodes `prompt` in one row of `length` tokens and truncates the rest. Breaks are ignored.
///
/// # Errors
/// The tokenizer cannot encode this text.
pub fn sequence(tokenizer: &Tokenizer, prompt: &Prompt, length: usize) -> Result<WeightedTokens> {
    let runs = runs(tokenizer, prompt)?.into_iter();
    let tokens = runs.flat_map(|run| match run {
        Run::Tokens(tokens) | Run::Together(tokens) => tokens,
        Run::Break => Vec::new(),
    });
    Ok(row(tokenizer, tokens.collect(), length))
}

/// Pads each of `prompts` with empty chunks to as many as the longest has, as classifier-free guidance needs.
pub fn pad_together(tokenizer: &Tokenizer, prompts: &mut [Vec<WeightedTokens>], length: usize) {
    let most = prompts.iter().map(Vec::len).max().unwrap_or(0);
    for chunks in prompts {
        chunks.resize_with(most, || row(tokenizer, Vec::new(), length));
    }
}

fn runs(tokenizer: &Tokenizer, prompt: &Prompt) -> Result<Vec<Run>> {
    let mut runs = Vec::with_capacity(prompt.parts.len());
    for part in &prompt.parts {
        match part {
            Part::Text { text, weight } => {
                for piece in tokenizer.pieces(text) {
                    let weighted = |ids: Vec<u32>| ids.into_iter().map(|id| (id, *weight)).collect();
                    runs.push(match piece {
                        Piece::Text(text) => Run::Tokens(weighted(tokenizer.words(text)?)),
                        Piece::Embedding(ids) => Run::Together(weighted(ids.collect())),
                    });
                }
            }
            Part::Break => runs.push(Run::Break),
        }
    }
    Ok(runs)
}

/// Adds special tokens and padding to `tokens`, which are truncated at their end if necessary.
fn row(tokenizer: &Tokenizer, mut tokens: Vec<Token>, length: usize) -> WeightedTokens {
    let (before, after) = tokenizer.frame();
    let capacity = length.saturating_sub(before.len() + after.len());
    let truncated = tokens.len().saturating_sub(capacity);
    tokens.truncate(capacity);
    let plain = |ids: &[u32]| ids.iter().map(|&id| (id, 1.0)).collect::<Vec<Token>>();
    let mut framed = [plain(before), tokens, plain(after)].concat();
    framed.resize(length, (tokenizer.padding(), 1.0));
    let (ids, weights) = framed.into_iter().unzip();
    WeightedTokens {
        ids,
        weights,
        truncated,
    }
}
