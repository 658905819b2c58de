//! Normalizers, which change a text before it is split.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Replace, Sequence as Normalizers, Strip,
};

use super::charsmap;
use super::pattern::Pattern;
use super::{Refusal, Steps};

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum Normalizer {
    Sequence {
        normalizers: Vec<Self>,
    },
    Precompiled {
        precompiled_charsmap: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Lowercase,
    Nmt,
    #[allow(clippy::upper_case_acronyms)]
    NFC,
    #[allow(clippy::upper_case_acronyms)]
    NFD,
    #[allow(clippy::upper_case_acronyms)]
    NFKC,
    #[allow(clippy::upper_case_acronyms)]
    NFKD,
}

impl Normalizer {
    pub(super) fn build(self, steps: &mut Steps) -> Result<NormalizerWrapper, Refusal> {
        steps.take()?;
        Ok(match self {
            Self::Sequence { normalizers } => {
                let normalizers = normalizers.into_iter().map(|normalizer| normalizer.build(steps));
                NormalizerWrapper::Sequence(Normalizers::new(normalizers.collect::<Result<_, _>>()?))
            }
            Self::Precompiled { precompiled_charsmap } => {
                let bytes = BASE64_STANDARD
                    .decode(precompiled_charsmap)
                    .map_err(|error| format!("its precompiled_charsmap is not base64 ({error})"))?;
                charsmap::check(&bytes)?;
                let precompiled = Precompiled::from(&bytes);
                NormalizerWrapper::Precompiled(precompiled.map_err(|error| error.to_string())?)
            }
            Self::Replace { pattern, content } => {
                // A single character, so that repeated replacements cannot grow the text.
                if content.chars().count() > 1 {
                    return Err(format!(
                        "it replaces a pattern by `{content}`, which is more than a character"
                    ));
                }
                let replace = Replace::new(ReplacePattern::from(pattern.checked()?), content);
                NormalizerWrapper::Replace(replace.map_err(|error| error.to_string())?)
            }
            Self::Strip {
                strip_left,
                strip_right,
            } => NormalizerWrapper::StripNormalizer(Strip::new(strip_left, strip_right)),
            Self::Lowercase => NormalizerWrapper::Lowercase(Lowercase),
            Self::Nmt => NormalizerWrapper::Nmt(Nmt),
            Self::NFC => NormalizerWrapper::NFC(NFC),
            Self::NFD => NormalizerWrapper::NFD(NFD),
            Self::NFKC => NormalizerWrapper::NFKC(NFKC),
            Self::NFKD => NormalizerWrapper::NFKD(NFKD),
        })
    }
}
