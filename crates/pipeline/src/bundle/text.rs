//! The text encoders of a model with their tokenizers.

use sd_models::{clip, t5};
use sd_weights::ModelFolder;

use super::classes;
use super::index::Index;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// diffusers gives T5 no more tokens than this unless told otherwise.
const LONGEST_T5_PROMPT: usize = 256;
/// CLIP's own limit, where a tokenizer's configuration gives none.
const CLIP_LIMIT: usize = 77;

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub struct TextPart<C> {
    /// The component's folder: `text_encoder_2`, say.
    pub component: &'static str,
    /// From text to ids.
    pub tokenizer: Tokenizer,
    /// The encoder's configuration.
    pub config: C,
}

/// The text encoders of a model.
#[derive(Debug)]
pub struct TextEncoders {
    /// The CLIPs, in the order in which their vectors are put together.
    pub clips: Vec<TextPart<clip::Config>>,
    /// T5, which a model can do without.
    pub t5: Option<TextPart<t5::Config>>,
}

impl TextEncoders {
    const CLIPS: [(&str, &str); 2] = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
    const T5: (&str, &str) = ("text_encoder_3", "tokenizer_3");
    /// Every folder that an encoder or its tokenizer can lie in.
    pub(crate) const FOLDERS: [(&str, &str); 3] = [Self::CLIPS[0], Self::CLIPS[1], Self::T5];

    /// Opens those that `index` has.
    pub(super) fn open(folder: &ModelFolder, index: &Index) -> Result<Self> {
        let has = |component: &str| index.has(component, |path| folder.contains(path));
        let mut clips = Vec::new();
        for (component, tokenizer) in Self::CLIPS {
            if has(component) {
                classes::check(folder, Some(index), component, classes::CLIPS)?;
                clips.push(TextPart::open(folder, component, tokenizer, clip::Config::check)?);
            }
        }
        let (component, tokenizer) = Self::T5;
        Ok(Self {
            clips,
            t5: if has(component) {
                classes::check(folder, Some(index), component, classes::T5S)?;
                Some(TextPart::open(folder, component, tokenizer, t5::Config::check)?)
            } else {
                None
            },
        })
    }

    /// The folders of the encoders.
    pub(crate) fn components(&self) -> impl Iterator<Item = &'static str> {
        let clips = self.clips.iter().map(|part| part.component);
        clips.chain(self.t5.iter().map(|part| part.component))
    }

    /// Tokens that the CLIPs read of a text at a time.
    pub fn clip_length(&self) -> usize {
        self.clips
            .first()
            .and_then(|part| part.tokenizer.limit())
            .unwrap_or(CLIP_LIMIT)
    }

    /// Tokens that T5 reads of a prompt, or that are left empty where there is none.
    pub fn t5_length(&self) -> usize {
        let limit = self.t5.as_ref().and_then(|part| part.tokenizer.limit());
        limit.map_or(LONGEST_T5_PROMPT, |limit| limit.min(LONGEST_T5_PROMPT))
    }

    /// Features of the CLIPs' vectors together.
    pub(super) fn clip_features(&self) -> usize {
        self.clips.iter().map(|part| part.config.hidden_size).sum()
    }

    /// Whether every encoder has a place for each id of its tokenizer, and all read texts of one length.
    pub(super) fn check(&self, refuse: impl Fn(String) -> Error) -> Result<()> {
        for part in &self.clips {
            let positions = part.config.max_position_embeddings;
            part.check(part.config.vocab_size, Some(positions))?;
            // All CLIPs read the first one's length.
            if self.clip_length() > positions {
                return Err(refuse(format!(
                    "{} tokens are read of a text, and {} has places for {positions}",
                    self.clip_length(),
                    part.component
                )));
            }
        }
        match &self.t5 {
            Some(t5) => t5.check(t5.config.vocab_size, None),
            None => Ok(()),
        }
    }
}

impl<C: serde::de::DeserializeOwned> TextPart<C> {
    /// Opens the encoder in `component`, whose configuration passes `check`.
    fn open(
        folder: &ModelFolder,
        component: &'static str,
        tokenizer: &str,
        check: fn(&C) -> sd_models::Result<()>,
    ) -> Result<Self> {
        let config = folder.json(&format!("{component}/config.json"))?;
        check(&config)?;
        Ok(Self {
            component,
            tokenizer: Tokenizer::open(folder, tokenizer)?,
            config,
        })
    }

    /// Whether every id, and as many as the tokenizer may give, has a place in the encoder.
    fn check(&self, vocabulary: usize, positions: Option<usize>) -> Result<()> {
        let refuse = |gives: String, takes: String| Error::TokenizerDoesNotFit {
            folder: self.tokenizer.folder().to_owned(),
            gives,
            takes,
        };
        let ids = self.tokenizer.vocabulary_size();
        if ids > vocabulary {
            return Err(refuse(
                format!("gives {ids} different ids"),
                format!("{vocabulary}"),
            ));
        }
        match (self.tokenizer.limit(), positions) {
            (Some(limit), Some(positions)) if limit > positions => Err(refuse(
                format!("gives up to {limit} ids for a prompt"),
                format!("{positions}"),
            )),
            _ => Ok(()),
        }
    }
}
