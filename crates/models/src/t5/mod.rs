//! The encoder of T5 v1.1: transformers' `T5EncoderModel`.
//!
//! Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020,
//! with the gated feed-forward layers of Shazeer, "GLU Variants Improve Transformer", 2020.

mod attention;
mod config;
mod feed_forward;
mod footprint;
mod layer;
mod position;
mod work;

use std::collections::BTreeMap;

use candle_core::Tensor;
use sd_ops::{RmsNorm, converted, rms_norm};
use sd_weights::{Blocks, Table, Weights};

pub use config::Config;

use crate::texts::common_length;
use crate::{Result, layers};
use layer::Half;
use position::RelativePositions;

/// The name of the network in errors.
const NETWORK: &str = "T5 text encoder";

/// A text encoder.
#[derive(Debug)]
pub struct TextEncoder {
    config: Config,
    weights: Weights,
    words: Table,
    positions: Blocks<RelativePositions>,
    halves: Blocks<Half>,
    exit: Blocks<RmsNorm>,
}

impl TextEncoder {
    /// The encoder that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let (of_positions, of_halves) = (config.clone(), config.clone());
        let (width, epsilon) = (config.d_model, config.layer_norm_epsilon);
        let encoder = weights.scope("encoder");
        // The first layer's attention holds the table of positions that all layers use.
        let first = encoder.scope("block.0.layer.0.SelfAttention.relative_attention_bias");
        // One table under either of two names.
        let names = ["shared.weight", "encoder.embed_tokens.weight"];
        let name = names.into_iter().find(|name| weights.contains(name));
        Ok(Self {
            words: weights.table(name.unwrap_or(names[0]), &[config.vocab_size, width])?,
            config: config.clone(),
            positions: Blocks::single(first, move |weights| {
                RelativePositions::new(weights, &of_positions)
            })?,
            halves: Blocks::new(
                Half::scopes(&encoder, config.num_layers),
                move |index, weights| Half::new(index, weights, &of_halves),
            )?,
            exit: Blocks::single(encoder.scope("final_layer_norm"), move |weights| {
                layers::rms_norm(weights, width, epsilon)
            })?,
            weights,
        })
    }

    /// Encodes `texts`, rows of token ids of the same length: `[texts, tokens, d_model]`. Padding is encoded
    /// like any other token, as diffusers does for Stable Diffusion 3.
    ///
    /// # Errors
    /// A token id is out of range, the lengths differ, a file is damaged, or the device fails.
    pub fn encode(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let mut encoded = self.encode_each(&[texts])?;
        Ok(encoded.pop().expect("one batch has one result. This is a bug."))
    }

    /// Encodes each of `batches` like [`encode`](Self::encode), to the same bits, in one pass over the layers.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_each(&self, batches: &[&[Vec<u32>]]) -> Result<Vec<Tensor>> {
        let mut embedded = Vec::with_capacity(batches.len());
        // Texts of one length share it.
        let mut biases: BTreeMap<usize, Tensor> = BTreeMap::new();
        for texts in batches {
            let tokens = self.check_texts(texts)?;
            let hidden = self.embed(texts, tokens)?;
            let bias = match biases.get(&tokens) {
                Some(bias) => bias.clone(),
                None => self.positions.block(0)?.bias(tokens, hidden.device())?,
            };
            biases.insert(tokens, bias.clone());
            embedded.push((hidden, bias));
        }
        drop(biases);
        for half in self.halves.pass()? {
            let half = half?;
            for (hidden, bias) in &mut embedded {
                *hidden = half.forward(hidden, bias)?;
            }
        }
        let norm = self.exit.block(0)?;
        let finished = embedded
            .into_iter()
            .map(|(hidden, _)| Ok(rms_norm(&hidden, &norm)?));
        finished.collect()
    }

    /// Token embeddings, `[texts, tokens, d_model]`. Only the rows that are needed are read from the table.
    fn embed(&self, texts: &[Vec<u32>], tokens: usize) -> Result<Tensor> {
        let ids: Vec<usize> = texts.iter().flatten().map(|&id| id as usize).collect();
        let words = self.words.rows(&ids)?;
        let activation_type = self.weights.options().activation_type();
        let words = converted(&words, activation_type)?;
        Ok(words.reshape((texts.len(), tokens, self.config.d_model))?)
    }

    /// The common length of all texts.
    fn check_texts(&self, texts: &[Vec<u32>]) -> Result<usize> {
        common_length(texts, NETWORK, None, self.config.vocab_size)
    }
}
