//! The model of a tokenizer: BPE or unigrams, with its vocabulary.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;

use super::super::WORDS_REMEMBERED;
use super::Refusal;

/// The most tokens of a vocabulary, and one more than the largest id.
const MOST_TOKENS: usize = 1 << 20;

#[derive(Deserialize)]
pub(super) struct Model {
    /// Older files omit it; then the vocabulary shows the type.
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    merges: Option<Vec<Merge>>,
    unk_id: Option<usize>,
    unk_token: Option<String>,
    dropout: Option<f32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Tokens with their ids, or in the order of their ids with their scores.
enum Vocabulary {
    Ids(HashMap<String, u32>),
    Scores(Vec<(String, f64)>),
}

/// Two tokens that are merged.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Spaced(String),
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = HashMap::new();
                while let Some((token, id)) = entries.next_entry::<String, u32>()? {
                    check_token::<A::Error>(&token, tokens.len())?;
                    if id as usize >= MOST_TOKENS {
                        return Err(de::Error::custom(format!("the id {id} is too large")));
                    }
                    tokens.insert(token, id);
                }
                Ok(Vocabulary::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, score)) = entries.next_element::<(String, f64)>()? {
                    check_token::<A::Error>(&token, tokens.len())?;
                    if !score.is_finite() {
                        return Err(de::Error::custom(format!("the score {score} is no number")));
                    }
                    tokens.push((token, score));
                }
                Ok(Vocabulary::Scores(tokens))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

fn check_token<E: de::Error>(token: &str, before: usize) -> Result<(), E> {
    if token.is_empty() {
        return Err(E::custom("a token is empty"));
    }
    if before == MOST_TOKENS {
        return Err(E::custom(format!("it has more than {MOST_TOKENS} tokens")));
    }
    Ok(())
}

impl Model {
    pub(super) fn build(self) -> Result<ModelWrapper, Refusal> {
        if self.byte_fallback
            || self.ignore_merges
            || self.fuse_unk
            || self.dropout.is_some_and(|part| part != 0.0)
        {
            return Err(
                "its model has byte_fallback, ignore_merges, fuse_unk or dropout, which are not known"
                    .to_owned(),
            );
        }
        let default = match &self.vocab {
            Vocabulary::Ids(_) => "BPE",
            Vocabulary::Scores(_) => "Unigram",
        };
        let kind = self.kind.as_deref().unwrap_or(default);
        if kind != default {
            return Err(format!(
                "its model is `{kind}` with the vocabulary of another; BPE and Unigram are known"
            ));
        }
        match self.vocab {
            Vocabulary::Ids(vocabulary) => {
                if self
                    .continuing_subword_prefix
                    .is_some_and(|prefix| !prefix.is_empty())
                {
                    return Err("its model has a continuing_subword_prefix, which CLIP has not".to_owned());
                }
                let merges = self.merges.unwrap_or_default().into_iter().map(Merge::pair);
                let vocabulary: tokenizers::models::bpe::Vocab = vocabulary.into_iter().collect();
                let mut builder = BPE::builder()
                    .vocab_and_merges(vocabulary, merges.collect::<Result<_, _>>()?)
                    .cache_capacity(WORDS_REMEMBERED);
                if let Some(suffix) = self.end_of_word_suffix {
                    builder = builder.end_of_word_suffix(suffix);
                }
                if let Some(unknown) = self.unk_token {
                    builder = builder.unk_token(unknown);
                }
                let model = builder.build().map_err(|error| error.to_string())?;
                Ok(ModelWrapper::BPE(model))
            }
            Vocabulary::Scores(vocabulary) => {
                if self.unk_id.is_none() {
                    return Err("its model has no unk_id, for what is not in its vocabulary".to_owned());
                }
                let model =
                    Unigram::from(vocabulary, self.unk_id, false).map_err(|error| error.to_string())?;
                Ok(ModelWrapper::Unigram(model))
            }
        }
    }
}

impl Merge {
    fn pair(self) -> Result<(String, String), Refusal> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Spaced(text) => match text.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(format!("`{text}` is no pair of tokens")),
            },
        }
    }
}
