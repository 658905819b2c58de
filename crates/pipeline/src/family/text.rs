//! What the families share: CLIPs with their tokenizers, which run one after the other.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_models::clip;
use sd_weights::{EmbeddingFile, ModelPart, ModelSource, Naming, WeightOptions};

use super::EncodedPrompt;
use super::contract::{EncoderStage, EncoderWeights, TextComponent, TextEncoders};
use super::layout::TEXT_ENCODERS;
use crate::components::{self, Components, ModelIndex};
use crate::device::to_host;
use crate::prompt::{self, Prompt, WeightedTokens};
use crate::tokenizer::{Tokenizer, Tokenizers};
use crate::{Error, Result};

/// CLIP's context length, if a tokenizer's configuration gives none.
const CLIP_LIMIT: usize = 77;

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub(super) struct TextPart<C> {
    /// Its components.
    pub(super) folders: TextComponent,
    /// The tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// The encoder's configuration.
    pub(super) config: C,
    /// Files of textual inversion, whose vectors follow the vocabulary in this order.
    pub(super) embeddings: Vec<Arc<EmbeddingFile>>,
}

/// The CLIPs of a model, in the order in which their vectors are concatenated.
#[derive(Debug)]
pub(super) struct Clips {
    pub(super) parts: Vec<TextPart<clip::Config>>,
}

/// The text encoders of Stable Diffusion 1, 2, XL and its refiner: CLIPs, whose vectors are concatenated. A
/// prompt longer than CLIP's context is encoded in chunks.
#[derive(Debug)]
pub(super) struct ChunkedClips {
    pub(super) clips: Clips,
    /// The hidden state of CLIP that is the context.
    pub(super) hidden: clip::Hidden,
    /// Features of the last CLIP's pooled vectors, if the network takes them.
    pub(super) pooled_features: Option<usize>,
}

/// Prompts encoded by one CLIP.
pub(super) struct EncodedByClip {
    /// `[prompts, tokens, features]`
    pub(super) hidden: Tensor,
    /// `[prompts, features]`
    pub(super) pooled: Option<Tensor>,
}

/// The components at `index` of [`TEXT_ENCODERS`].
pub(super) fn folders(index: usize) -> TextComponent {
    const ELSEWHERE: [(ModelPart, &[Naming]); 3] = [
        (ModelPart::TextEncoder, Naming::ALL_OF_CLIP),
        (ModelPart::TextEncoder2, Naming::ALL_OF_CLIP),
        (ModelPart::TextEncoder3, &[Naming::T5_GGUF]),
    ];
    let (encoder, tokenizer) = TEXT_ENCODERS[index];
    let (part, namings) = ELSEWHERE[index];
    TextComponent {
        encoder,
        tokenizer,
        part,
        namings,
    }
}

/// The components of a model's CLIPs.
fn clip_folders(source: &dyn ModelSource, index: &ModelIndex) -> Vec<TextComponent> {
    let mut all = vec![folders(0), folders(1)];
    all.retain(|folders| index.has(folders.encoder, |component| source.has_config(component)));
    all
}

/// The configurations of a model's CLIPs.
///
/// # Errors
/// One is missing, of another class, or not supported.
pub(super) fn clip_configs(source: &dyn ModelSource, index: &ModelIndex) -> Result<Vec<clip::Config>> {
    let of = |folders: &TextComponent| -> Result<clip::Config> {
        components::check_class(source, Some(index), folders.encoder, components::CLIPS)?;
        let config: clip::Config = source.config(folders.encoder)?.json()?;
        config.check()?;
        Ok(config)
    };
    clip_folders(source, index).iter().map(of).collect()
}

impl Clips {
    /// Opens the CLIPs of a model.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub(super) fn open(
        source: &dyn ModelSource,
        index: &ModelIndex,
        tokenizers: &Tokenizers,
    ) -> Result<Self> {
        let of = |folders| {
            let (known, check) = (components::CLIPS, clip::Config::check);
            TextPart::open(source, index, tokenizers, folders, known, check)
        };
        let parts = clip_folders(source, index).into_iter().map(of);
        Ok(Self {
            parts: parts.collect::<Result<_>>()?,
        })
    }

    /// Tokens of one chunk.
    pub(super) fn length(&self) -> usize {
        self.parts
            .first()
            .and_then(|part| part.tokenizer.limit())
            .unwrap_or(CLIP_LIMIT)
    }

    /// Features of the CLIPs' concatenated vectors.
    pub(super) fn features(&self) -> usize {
        self.parts.iter().map(|part| part.config.hidden_size).sum()
    }

    /// Adds the vectors of `file` to each CLIP, for the word `name` and the one that the file itself names.
    ///
    /// # Errors
    /// The file has no vectors for one of the CLIPs, or others than it takes.
    pub(super) fn add_embedding(&mut self, name: &str, file: &Arc<EmbeddingFile>) -> Result<()> {
        let encoders = self.parts.iter();
        let encoders = encoders.map(|part| (part.folders.part, part.config.hidden_size));
        file.check(&encoders.collect::<Vec<_>>())?;
        for part in &mut self.parts {
            let first = part.config.vocab_size + part.added();
            let ids = first as u32..(first + file.count(part.folders.part)) as u32;
            for word in std::iter::once(name).chain(file.word()) {
                part.tokenizer.add_word(word, ids.clone());
            }
            part.embeddings.push(file.clone());
        }
        Ok(())
    }

    /// Checks that every CLIP has an embedding for each id of its tokenizer, and positions for the context
    /// length.
    ///
    /// # Errors
    /// One has not.
    pub(super) fn check(&self, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        for part in &self.parts {
            let positions = part.config.max_position_embeddings;
            part.check(part.config.vocab_size, Some(positions))?;
            if self.length() > positions {
                return Err(refuse(format!(
                    "the context has {} tokens, and {} has {positions} positions",
                    self.length(),
                    part.folders.encoder
                )));
            }
        }
        Ok(())
    }
}

impl<C: serde::de::DeserializeOwned> TextPart<C> {
    /// Opens the encoder of `folders`, whose class is one of `known` and whose configuration passes `check`.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub(super) fn open(
        source: &dyn ModelSource,
        index: &ModelIndex,
        tokenizers: &Tokenizers,
        folders: TextComponent,
        known: &'static [&'static str],
        check: fn(&C) -> sd_models::Result<()>,
    ) -> Result<Self> {
        components::check_class(source, Some(index), folders.encoder, known)?;
        let config = source.config(folders.encoder)?.json()?;
        check(&config)?;
        Ok(Self {
            folders,
            tokenizer: tokenizers.open(source, folders.tokenizer)?,
            config,
            embeddings: Vec::new(),
        })
    }
}

impl<C> TextPart<C> {
    /// Checks that the encoder has an embedding for every id of the tokenizer, and positions for its longest
    /// sequence.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn check(&self, vocabulary: usize, positions: Option<usize>) -> Result<()> {
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

impl TextPart<clip::Config> {
    /// How many vectors of textual inversion follow the vocabulary.
    fn added(&self) -> usize {
        let part = self.folders.part;
        self.embeddings.iter().map(|file| file.count(part)).sum()
    }

    /// The encoder of `components`, with the vectors of textual inversion, which are read, or zeros in their place.
    ///
    /// # Errors
    /// A file is missing or wrong.
    fn encoder(
        &self,
        components: &Components,
        weight_options: &WeightOptions,
        vectors: EmbeddingVectors,
    ) -> Result<clip::TextEncoder> {
        let weights = components.weights(self.folders.encoder, weight_options)?;
        let encoder = clip::TextEncoder::new(weights, &self.config)?;
        if self.embeddings.is_empty() {
            return Ok(encoder);
        }
        let shape = (self.added(), self.config.hidden_size);
        let embeddings = match vectors {
            EmbeddingVectors::Zeros => Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
            EmbeddingVectors::Read => {
                let mut values = Vec::with_capacity(shape.0 * shape.1);
                for file in &self.embeddings {
                    values.extend(file.read(self.folders.part)?);
                }
                Tensor::from_vec(values, shape, &Device::Cpu)?
            }
        };
        Ok(encoder.with_embeddings(&embeddings)?)
    }
}

/// Whether the vectors of textual inversion are read: for a plan their number is enough.
#[derive(Debug, Clone, Copy)]
enum EmbeddingVectors {
    Zeros,
    Read,
}

/// One row of `length` tokens for each of `prompts`, and how many tokens of the longest are truncated.
///
/// # Errors
/// The tokenizer cannot encode a prompt.
pub(super) fn sequences(
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    length: usize,
) -> Result<(Vec<WeightedTokens>, usize)> {
    let rows = prompts
        .iter()
        .map(|prompt| prompt::sequence(tokenizer, prompt, length));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let truncated = rows.iter().map(|row| row.truncated).max().unwrap_or(0);
    Ok((rows, truncated))
}

/// The rows of tokens of some prompts for a CLIP.
pub(super) struct ClipRows {
    /// The same number of rows for each prompt, whose vectors are concatenated.
    pub(super) rows: Vec<WeightedTokens>,
    /// That number.
    pub(super) chunks: usize,
}

/// Encodes each of `batches` with the CLIP of `part`, which is read once.
///
/// # Errors
/// A file is wrong, the device fails, or a value is not finite.
pub(super) fn run_clip(
    components: &Components,
    part: &TextPart<clip::Config>,
    batches: Vec<ClipRows>,
    wanted: clip::Wanted,
    weights: EncoderWeights<'_>,
) -> Result<Vec<EncodedByClip>> {
    let component = part.folders.encoder;
    let mut ids = Vec::with_capacity(batches.len());
    let mut others = Vec::with_capacity(batches.len());
    for ClipRows { rows, chunks } in batches {
        let (of_rows, weights): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.ids, row.weights)).unzip();
        ids.push(of_rows);
        others.push((weights, chunks));
    }
    let encoder = part.encoder(components, &weights.of(component), EmbeddingVectors::Read)?;
    let ids: Vec<&[Vec<u32>]> = ids.iter().map(Vec::as_slice).collect();
    let encoded = encoder.encode_each(&ids, wanted)?;
    let finished = encoded
        .into_iter()
        .zip(others)
        .map(|(encoded, (weights, chunks))| {
            let encoded = joined(&encoded, &weights, chunks)?;
            for tensor in std::iter::once(&encoded.hidden).chain(&encoded.pooled) {
                components.check_finite(tensor, component, component)?;
            }
            Ok(encoded)
        });
    finished.collect()
}

/// The vectors of each prompt, of `chunks` rows each, with the emphasis of `weights`.
fn joined(encoded: &clip::Encoded, weights: &[Vec<f32>], chunks: usize) -> Result<EncodedByClip> {
    let hidden = prompt::emphasise(&to_host(&encoded.hidden)?, weights)?;
    let (rows, length, features) = hidden.dims3()?;
    let prompts = rows / chunks;
    let pooled = match &encoded.pooled {
        // The pooled vector is that of the first chunk.
        Some(pooled) => {
            let first = Tensor::from_iter((0..prompts).map(|prompt| (prompt * chunks) as u32), &Device::Cpu)?;
            Some(to_host(pooled)?.index_select(&first, 0)?)
        }
        None => None,
    };
    Ok(EncodedByClip {
        hidden: hidden.reshape((prompts, chunks * length, features))?,
        pooled,
    })
}

/// The stage of the CLIP of `part` for `rows` of `length` tokens.
///
/// # Errors
/// Its configuration is not supported, or it lacks an output that is `wanted`.
pub(super) fn clip_stage(
    components: &Components,
    part: &TextPart<clip::Config>,
    (rows, length): (usize, usize),
    wanted: clip::Wanted,
    weight_options: &WeightOptions,
) -> Result<EncoderStage> {
    let component = part.folders.encoder;
    let encoder = part.encoder(components, weight_options, EmbeddingVectors::Zeros)?;
    encoder.check(wanted)?;
    Ok(EncoderStage {
        component,
        weights: encoder.weight_bytes(),
        footprint: encoder.footprint(rows, length),
        work: encoder.work(rows, length),
    })
}

impl ChunkedClips {
    /// How many chunks the CLIPs read: as many as the longest of `prompts` needs.
    fn chunks(&self, prompts: &[Prompt]) -> Result<usize> {
        let length = self.clips.length();
        let mut most = 1;
        for part in &self.clips.parts {
            for prompt in prompts {
                most = most.max(prompt::chunks(&part.tokenizer, prompt, length)?.len());
            }
        }
        Ok(most)
    }

    /// The outputs of the CLIP at `index` that are used. Pooled vectors come from the last CLIP.
    fn wanted(&self, index: usize, skip: usize) -> clip::Wanted {
        let is_last = index + 1 == self.clips.parts.len();
        clip::Wanted {
            hidden: self.hidden,
            skip,
            pooled: self.pooled_features.is_some() && is_last,
        }
    }

    /// The rows of tokens of `prompts`, `chunks` for each.
    fn rows(&self, tokenizer: &Tokenizer, prompts: &[Prompt], chunks: usize) -> Result<Vec<WeightedTokens>> {
        let length = self.clips.length();
        let of_prompt = |prompt| prompt::chunks(tokenizer, prompt, length);
        let mut all = prompts.iter().map(of_prompt).collect::<Result<Vec<_>>>()?;
        // Another CLIP may need more chunks.
        all.push(vec![
            WeightedTokens {
                ids: Vec::new(),
                weights: Vec::new(),
                truncated: 0
            };
            chunks
        ]);
        prompt::pad_together(tokenizer, &mut all, length);
        all.pop();
        Ok(all.into_iter().flatten().collect())
    }
}

impl TextEncoders for ChunkedClips {
    fn add_embedding(&mut self, name: &str, file: &Arc<EmbeddingFile>) -> Result<()> {
        self.clips.add_embedding(name, file)
    }

    fn components(&self) -> Vec<TextComponent> {
        self.clips.parts.iter().map(|part| part.folders).collect()
    }

    fn context_features(&self) -> usize {
        self.clips.features()
    }

    fn pooled_features(&self) -> Option<usize> {
        self.pooled_features
    }

    fn tokens(&self, prompts: &[&str]) -> Result<usize> {
        Ok(self.chunks(&parsed(prompts))? * self.clips.length())
    }

    fn encode(
        &self,
        components: &Components,
        batches: &[&[&str]],
        clip_skip: usize,
        weights: EncoderWeights<'_>,
        pause: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>> {
        let batches: Vec<Vec<Prompt>> = batches.iter().map(|prompts| parsed(prompts)).collect();
        let mut by_batch: Vec<Vec<EncodedByClip>> = batches.iter().map(|_| Vec::new()).collect();
        for (index, part) in self.clips.parts.iter().enumerate() {
            let rows = batches.iter().map(|prompts| {
                let chunks = self.chunks(prompts)?;
                let rows = self.rows(&part.tokenizer, prompts, chunks)?;
                Ok(ClipRows { rows, chunks })
            });
            let rows = rows.collect::<Result<Vec<_>>>()?;
            let wanted = self.wanted(index, clip_skip);
            let encoded = run_clip(components, part, rows, wanted, weights)?;
            for (of_batch, encoded) in by_batch.iter_mut().zip(encoded) {
                of_batch.push(encoded);
            }
            pause()?;
        }
        let finished = by_batch.into_iter().map(|encoded| {
            let hidden: Vec<&Tensor> = encoded.iter().map(|encoded| &encoded.hidden).collect();
            Ok(EncodedPrompt {
                context: Tensor::cat(&hidden, 2)?,
                pooled: encoded.iter().find_map(|encoded| encoded.pooled.clone()),
                truncated: 0,
            })
        });
        finished.collect()
    }

    fn stages(
        &self,
        components: &Components,
        prompts: &[&str],
        clip_skip: usize,
        weight_options: &WeightOptions,
    ) -> Result<Vec<EncoderStage>> {
        let rows = (
            prompts.len() * self.chunks(&parsed(prompts))?,
            self.clips.length(),
        );
        let of = |(index, part)| {
            let wanted = self.wanted(index, clip_skip);
            clip_stage(components, part, rows, wanted, weight_options)
        };
        self.clips.parts.iter().enumerate().map(of).collect()
    }
}

/// Parses the emphasis of `prompts`.
pub(super) fn parsed(prompts: &[&str]) -> Vec<Prompt> {
    prompts.iter().map(|prompt| Prompt::parse(prompt)).collect()
}
