//! The text encoders of Stable Diffusion 3: two CLIPs, whose vectors are concatenated and padded to T5's
//! width, then T5.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_models::{clip, mmdit, t5};
use sd_weights::{EmbeddingFile, ModelSource, WeightOptions};

use crate::components::{self, Components, ModelIndex};
use crate::device::to_host;
use crate::family::EncodedPrompt;
use crate::family::contract::{EncoderStage, EncoderWeights, TextComponent, TextEncoders};
use crate::family::layout::TRANSFORMER;
use crate::family::text::{
    ClipRows, Clips, EncodedByClip, TextPart, clip_stage, folders, parsed, run_clip, sequences,
};
use crate::prompt::{self, Prompt};
use crate::tokenizer::Tokenizers;
use crate::{Error, Result};

/// The default of `max_sequence_length` in diffusers.
const LONGEST_T5_PROMPT: usize = 256;

/// Two CLIPs and T5. Without a T5 its tokens are zeros.
#[derive(Debug)]
pub(super) struct Sd3TextEncoders {
    clips: Clips,
    t5: Option<TextPart<t5::Config>>,
    /// Features of a token in the context, those of T5.
    features: usize,
    pooled_features: usize,
}

impl Sd3TextEncoders {
    /// Opens the text encoders of a model for the transformer of `network`.
    ///
    /// # Errors
    /// A file is missing or wrong.
    pub(super) fn open(
        source: &dyn ModelSource,
        index: &ModelIndex,
        tokenizers: &Tokenizers,
        network: &mmdit::Config,
    ) -> Result<Self> {
        let of_t5 = folders(2);
        let has_t5 = index.has(of_t5.encoder, |component| source.has_config(component));
        let (known, check) = (components::T5S, t5::Config::check);
        let t5 = has_t5.then(|| TextPart::open(source, index, tokenizers, of_t5, known, check));
        Ok(Self {
            clips: Clips::open(source, index, tokenizers)?,
            t5: t5.transpose()?,
            features: network.joint_attention_dim,
            pooled_features: network.pooled_projection_dim,
        })
    }

    /// Checks that the encoders fit the transformer of `network`.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(&self, network: &mmdit::Config, refuse: &dyn Fn(String) -> Error) -> Result<()> {
        self.clips.check(refuse)?;
        if let Some(t5) = &self.t5 {
            t5.check(t5.config.vocab_size, None)?;
        }
        let (clip, context) = (self.clips.features(), network.joint_attention_dim);
        if clip > context {
            return Err(refuse(format!(
                "CLIP gives {clip} features and the {TRANSFORMER} takes {context}"
            )));
        }
        if let Some(t5) = self.t5.as_ref().filter(|t5| t5.config.d_model != context) {
            return Err(refuse(format!(
                "T5 gives {} features and the {TRANSFORMER} takes {context}",
                t5.config.d_model
            )));
        }
        let pooled: usize = self
            .clips
            .parts
            .iter()
            .map(|part| part.config.projection_dim)
            .sum();
        if pooled != network.pooled_projection_dim {
            return Err(refuse(format!(
                "CLIP's summaries have {pooled} features and the {TRANSFORMER} takes {}",
                network.pooled_projection_dim
            )));
        }
        Ok(())
    }

    /// Tokens of T5's context, also where zeros stand in for T5.
    fn t5_length(&self) -> usize {
        let limit = self.t5.as_ref().and_then(|part| part.tokenizer.limit());
        limit.map_or(LONGEST_T5_PROMPT, |limit| limit.min(LONGEST_T5_PROMPT))
    }

    /// The outputs of each CLIP that are used.
    fn wanted(skip: usize) -> clip::Wanted {
        clip::Wanted {
            hidden: clip::Hidden::Penultimate,
            skip,
            pooled: true,
        }
    }

    /// T5's context of each of `batches`, and how many tokens of the longest prompt are truncated.
    fn run_t5(
        &self,
        components: &Components,
        part: &TextPart<t5::Config>,
        batches: &[Vec<Prompt>],
        weights: EncoderWeights<'_>,
    ) -> Result<Vec<(Tensor, usize)>> {
        let component = part.folders.encoder;
        let mut ids = Vec::with_capacity(batches.len());
        let mut others = Vec::with_capacity(batches.len());
        for prompts in batches {
            let (rows, truncated) = sequences(&part.tokenizer, prompts, self.t5_length())?;
            let (of_rows, weights): (Vec<_>, Vec<_>) =
                rows.into_iter().map(|row| (row.ids, row.weights)).unzip();
            ids.push(of_rows);
            others.push((weights, truncated));
        }
        let ids: Vec<&[Vec<u32>]> = ids.iter().map(Vec::as_slice).collect();
        let of_network = components.weights(component, &weights.of(component))?;
        let encoded = t5::TextEncoder::new(of_network, &part.config)?.encode_each(&ids)?;
        let finished = encoded.into_iter().zip(others);
        let finished = finished.map(|(encoded, (weights, truncated))| {
            let context = prompt::emphasise(&to_host(&encoded)?, &weights)?;
            components.check_finite(&context, component, component)?;
            Ok((context, truncated))
        });
        finished.collect()
    }

    /// The pooled vectors of the CLIPs, and their vectors padded to the width of the context.
    fn joined(&self, by_clips: &[EncodedByClip]) -> Result<(Tensor, Tensor)> {
        let hidden: Vec<&Tensor> = by_clips.iter().map(|encoded| &encoded.hidden).collect();
        let context = Tensor::cat(&hidden, 2)?;
        let pooled = by_clips.iter().filter_map(|encoded| encoded.pooled.as_ref());
        let pooled = Tensor::cat(&pooled.collect::<Vec<_>>(), 1)?;
        let missing = self.features - context.dim(2)?;
        Ok((pooled, context.pad_with_zeros(2, 0, missing)?))
    }
}

impl TextEncoders for Sd3TextEncoders {
    /// T5 reads the word as it is written.
    fn add_embedding(&mut self, name: &str, file: &Arc<EmbeddingFile>) -> Result<()> {
        self.clips.add_embedding(name, file)
    }

    fn components(&self) -> Vec<TextComponent> {
        let clips = self.clips.parts.iter().map(|part| part.folders);
        clips.chain(self.t5.iter().map(|part| part.folders)).collect()
    }

    fn context_features(&self) -> usize {
        self.features
    }

    fn pooled_features(&self) -> Option<usize> {
        Some(self.pooled_features)
    }

    /// CLIP reads one chunk: T5 reads long prompts.
    fn tokens(&self, _prompts: &[&str]) -> Result<usize> {
        Ok(self.clips.length() + self.t5_length())
    }

    /// Order and padding are those of diffusers' pipelines. See also Esser et al., "Scaling Rectified Flow
    /// Transformers for High-Resolution Image Synthesis", 2024, section 4 and appendix B.3.
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
        let mut truncated = vec![0; batches.len()];
        for part in &self.clips.parts {
            let mut rows = Vec::with_capacity(batches.len());
            for (prompts, truncated) in batches.iter().zip(&mut truncated) {
                let (of_batch, truncated_here) = sequences(&part.tokenizer, prompts, self.clips.length())?;
                *truncated = truncated_here;
                rows.push(ClipRows {
                    rows: of_batch,
                    chunks: 1,
                });
            }
            let encoded = run_clip(components, part, rows, Self::wanted(clip_skip), weights)?;
            for (of_batch, encoded) in by_batch.iter_mut().zip(encoded) {
                of_batch.push(encoded);
            }
            pause()?;
        }
        let by_clips = by_batch.into_iter().map(|by_clips| self.joined(&by_clips));
        let by_clips = by_clips.collect::<Result<Vec<_>>>()?;
        let by_t5 = match &self.t5 {
            Some(part) => self.run_t5(components, part, &batches, weights)?,
            None => {
                let of_none = batches.iter().zip(truncated.iter().copied());
                let of_none = of_none.map(|(prompts, truncated)| {
                    let shape = (prompts.len(), self.t5_length(), self.features);
                    Ok((Tensor::zeros(shape, DType::F32, &Device::Cpu)?, truncated))
                });
                of_none.collect::<Result<Vec<_>>>()?
            }
        };
        pause()?;
        let finished = by_clips.into_iter().zip(by_t5).zip(truncated);
        let finished = finished.map(|(((pooled, context), (of_t5, by_t5)), by_clips)| {
            Ok(EncodedPrompt {
                context: Tensor::cat(&[context, of_t5], 1)?,
                pooled: Some(pooled),
                truncated: by_clips.min(by_t5),
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
        let rows = (prompts.len(), self.clips.length());
        let of = |part| clip_stage(components, part, rows, Self::wanted(clip_skip), weight_options);
        let mut stages = self.clips.parts.iter().map(of).collect::<Result<Vec<_>>>()?;
        if let Some(part) = &self.t5 {
            let component = part.folders.encoder;
            let encoder = t5::TextEncoder::new(components.weights(component, weight_options)?, &part.config)?;
            stages.push(EncoderStage {
                component,
                weights: encoder.weight_bytes(),
                footprint: encoder.footprint(prompts.len(), self.t5_length()),
                work: encoder.work(prompts.len(), self.t5_length()),
            });
        }
        Ok(stages)
    }
}
