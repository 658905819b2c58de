//! The text encoders of CLIP: transformers' `CLIPTextModelWithProjection`.
//!
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021; OpenCLIP's larger
//! ones have the same shape.

mod config;
mod footprint;
mod layer;

use candle_core::{DType, Device, Tensor};
use sd_ops::{LayerNorm, Linear, layer_norm, linear};
use sd_weights::{Blocks, Weights};

pub use config::{Activation, Config};

use crate::{Error, Result, layers};
use layer::Layer;

/// A text encoder.
#[derive(Debug)]
pub struct TextEncoder {
    config: Config,
    weights: Weights,
    layers: Blocks<Layer>,
    exit: Blocks<Exit>,
}

/// Texts as the encoder reads them.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// One vector a token, as the last layer but one gives them: `[texts, tokens, hidden_size]`.
    pub penultimate: Tensor,
    /// One vector a text: the last layer's at the text's end, projected. `[texts, projection_dim]`
    pub pooled: Tensor,
}

#[derive(Debug)]
struct Exit {
    norm: LayerNorm,
    projection: Linear,
}

impl TextEncoder {
    /// The encoder that `config` describes. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let (of_layers, of_exit) = (config.clone(), config.clone());
        let model = weights.scope("text_model");
        let scopes: Vec<Weights> = (0..config.num_hidden_layers)
            .map(|layer| model.scope("encoder.layers").scope(layer))
            .collect();
        Ok(Self {
            config: config.clone(),
            layers: Blocks::new(scopes, move |_, weights| Layer::new(weights, &of_layers)),
            exit: Blocks::single(weights.clone(), move |weights| Exit::new(weights, &of_exit)),
            weights: model,
        })
    }

    /// Encodes `texts`: rows of token ids, all of one length.
    ///
    /// # Errors
    /// An id or the length has no place in the encoder, a file is wrong, or the device fails.
    pub fn encode(&self, texts: &[Vec<u32>]) -> Result<Encoded> {
        let tokens = self.check_texts(texts)?;
        let mut hidden = self.embed(texts, tokens)?;
        let mask = causal_mask(tokens, hidden.device())?;
        let mut penultimate = hidden.clone();
        for layer in self.layers.pass()? {
            penultimate = hidden;
            hidden = layer?.forward(&penultimate, &mask)?;
        }
        let exit = self.exit.block(0)?;
        let ends = texts
            .iter()
            .enumerate()
            .map(|(text, ids)| hidden.narrow(0, text, 1)?.narrow(1, self.end_of(ids), 1));
        let ends = Tensor::cat(&ends.collect::<candle_core::Result<Vec<_>>>()?, 0)?.squeeze(1)?;
        Ok(Encoded {
            penultimate,
            pooled: linear(&layer_norm(&ends, &exit.norm)?, &exit.projection)?,
        })
    }

    /// Token and position embeddings added, `[texts, tokens, hidden_size]`. Of the tables only the rows that are
    /// needed are read.
    fn embed(&self, texts: &[Vec<u32>], tokens: usize) -> Result<Tensor> {
        let Config {
            vocab_size,
            hidden_size,
            max_position_embeddings,
            ..
        } = self.config;
        let embeddings = self.weights.scope("embeddings");
        let ids: Vec<usize> = texts.iter().flatten().map(|&id| id as usize).collect();
        let words = embeddings.rows("token_embedding.weight", &[vocab_size, hidden_size], &ids)?;
        let places: Vec<usize> = (0..tokens).collect();
        let table = [max_position_embeddings, hidden_size];
        let places = embeddings.rows("position_embedding.weight", &table, &places)?;
        let activation_type = self.weights.holding().activation_type();
        let words = words
            .to_dtype(activation_type)?
            .reshape((texts.len(), tokens, hidden_size))?;
        Ok(words.broadcast_add(&places.to_dtype(activation_type)?)?)
    }

    /// Where a text ends. A configuration with the end token 2 is from before that token was written down
    /// rightly; there the largest id is the end's.
    fn end_of(&self, ids: &[u32]) -> usize {
        const WRONG_END: u32 = 2;
        let end = match self.config.eos_token_id {
            WRONG_END => ids.iter().copied().max().unwrap_or_default(),
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or_default()
    }

    /// The length that all texts have.
    fn check_texts(&self, texts: &[Vec<u32>]) -> Result<usize> {
        let refuse = |found: String, wanted: String| {
            Err(Error::Input {
                network: "CLIP text encoder",
                found,
                wanted,
            })
        };
        let tokens = texts.first().map_or(0, Vec::len);
        let longest = self.config.max_position_embeddings;
        if tokens == 0 || tokens > longest || texts.iter().any(|text| text.len() != tokens) {
            let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
            return refuse(
                format!("texts of {lengths:?} tokens"),
                format!("texts of one length from 1 to {longest}"),
            );
        }
        match texts
            .iter()
            .flatten()
            .find(|&&id| id as usize >= self.config.vocab_size)
        {
            Some(id) => refuse(
                format!("token {id}"),
                format!("tokens below {}", self.config.vocab_size),
            ),
            None => Ok(tokens),
        }
    }
}

impl Exit {
    fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let Config {
            hidden_size,
            projection_dim,
            layer_norm_eps,
            ..
        } = *config;
        let norm = weights.scope("text_model.final_layer_norm");
        Ok(Self {
            norm: layers::layer_norm(&norm, hidden_size, layer_norm_eps)?,
            projection: layers::linear_without_bias(
                &weights.scope("text_projection"),
                hidden_size,
                projection_dim,
            )?,
        })
    }
}

/// Zeros where a token (row) may look, minus infinity where a later one lies: `[tokens, tokens]`.
fn causal_mask(tokens: usize, device: &Device) -> Result<Tensor> {
    let look = |index: usize| {
        if index % tokens > index / tokens {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let values: Vec<f32> = (0..tokens * tokens).map(look).collect();
    Ok(Tensor::from_vec(values, (tokens, tokens), device)?.to_dtype(DType::F32)?)
}
