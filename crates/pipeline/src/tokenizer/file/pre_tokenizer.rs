//! Pre-tokenizers, which split a text into pieces that are tokenized separately.

use serde::Deserialize;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::pattern::Pattern;
use super::{Refusal, Steps, yes};

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<Self>,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Whitespace,
    WhitespaceSplit,
    Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Prepend>,
        split: Option<bool>,
    },
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Prepend {
    First,
    Never,
    Always,
}

impl PreTokenizer {
    pub(super) fn build(self, steps: &mut Steps) -> Result<PreTokenizerWrapper, Refusal> {
        steps.take()?;
        Ok(match self {
            Self::Sequence { pretokenizers } => {
                let splitters = pretokenizers.into_iter().map(|splitter| splitter.build(steps));
                PreTokenizerWrapper::Sequence(PreTokenizers::new(splitters.collect::<Result<_, _>>()?))
            }
            Self::Split {
                pattern,
                behavior,
                invert,
            } => {
                let split = Split::new(SplitPattern::from(pattern.checked()?), behavior, invert);
                PreTokenizerWrapper::Split(split.map_err(|error| error.to_string())?)
            }
            Self::ByteLevel {
                add_prefix_space,
                trim_offsets,
                use_regex,
            } => PreTokenizerWrapper::ByteLevel(ByteLevel::new(add_prefix_space, trim_offsets, use_regex)),
            Self::Whitespace => PreTokenizerWrapper::Whitespace(Whitespace),
            Self::WhitespaceSplit => PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            Self::Metaspace {
                replacement,
                add_prefix_space,
                prepend_scheme,
                split,
            } => {
                let scheme = match (add_prefix_space, prepend_scheme.unwrap_or(Prepend::Always)) {
                    (Some(false), _) | (_, Prepend::Never) => PrependScheme::Never,
                    (_, Prepend::First) => PrependScheme::First,
                    (_, Prepend::Always) => PrependScheme::Always,
                };
                PreTokenizerWrapper::Metaspace(Metaspace::new(replacement, scheme, split.unwrap_or(true)))
            }
        })
    }
}
