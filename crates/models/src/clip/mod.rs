//! The text encoders of CLIP: transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.
//!
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021. The larger
//! encoders of OpenCLIP have the same architecture.

mod config;
mod footprint;
mod layer;
mod work;

use candle_core::{DType, Device, Tensor};
use sd_ops::{LayerNorm, Linear, add_positions, converted, layer_norm, linear};
use sd_weights::{Blocks, Table, Weights};

pub use config::{Activation, Config};

use crate::texts::common_length;
use crate::{Error, Result, layers};
use layer::Layer;

const NETWORK: &str = "CLIP text encoder";
/// The token embeddings.
const TOKENS: &str = "embeddings.token_embedding.weight";
/// The position embeddings.
const POSITIONS: &str = "embeddings.position_embedding.weight";

/// A text encoder.
#[derive(Debug)]
pub struct TextEncoder {
    config: Config,
    /// The scope of the model, without the projection.
    model: Weights,
    tokens: Table,
    /// Vectors of textual inversion, `[vectors, hidden_size]`, for the ids from `vocab_size` on.
    embeddings: Option<Tensor>,
    positions: Table,
    layers: Blocks<Layer>,
    norm: Blocks<LayerNorm>,
    /// The scope of the projection, which is only needed for pooled embeddings.
    whole: Weights,
}

/// The embeddings that a network wants of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The layer that gives the token embeddings.
    pub hidden: Hidden,
    /// Last layers to skip ("clip skip"). Pooled embeddings are not affected.
    pub skip: usize,
    /// Whether a pooled embedding is wanted.
    pub pooled: bool,
}

/// The layer that gives the token embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// The last layer that is not skipped, after the final norm: Stable Diffusion 1 and 2.
    Normed,
    /// The layer before the last one that is not skipped, without a norm: Stable Diffusion XL and 3.
    Penultimate,
}

/// Encoded texts.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Token embeddings, `[texts, tokens, hidden_size]`.
    pub hidden: Tensor,
    /// Pooled embeddings, if wanted: the last layer's at the end of the text, normalised and projected,
    /// `[texts, projection_dim]`.
    pub pooled: Option<Tensor>,
}

/// Texts of one length between two layers.
struct Batch {
    /// Their embeddings, `[texts, tokens, hidden_size]`.
    x: Tensor,
    mask: Tensor,
    /// The embeddings before the layers that do not count.
    hidden: Option<Tensor>,
}

#[derive(Debug)]
struct Projection(Linear);

impl TextEncoder {
    /// The encoder that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let (of_layers, of_norm) = (config.clone(), config.clone());
        // Files of a `CLIPTextModel` have these names with and without what stands before them.
        let model = if weights.contains(&format!("text_model.{TOKENS}")) {
            weights.scope("text_model")
        } else {
            weights.clone()
        };
        let scopes: Vec<Weights> = (0..config.num_hidden_layers)
            .map(|layer| model.scope("encoder.layers").scope(layer))
            .collect();
        let width = config.hidden_size;
        Ok(Self {
            tokens: model.table(TOKENS, &[config.vocab_size, width])?,
            embeddings: None,
            positions: model.table(POSITIONS, &[config.max_position_embeddings, width])?,
            layers: Blocks::new(scopes, move |_, weights| Layer::new(weights, &of_layers))?,
            norm: Blocks::single(model.scope("final_layer_norm"), move |weights| {
                layers::layer_norm(weights, of_norm.hidden_size, of_norm.layer_norm_eps)
            })?,
            config: config.clone(),
            model,
            whole: weights,
        })
    }

    /// The encoder with `embeddings`, `[vectors, hidden_size]` on the CPU: vector `i` is the token embedding of the
    /// id `vocab_size + i`, as in transformers after `resize_token_embeddings`.
    ///
    /// # Errors
    /// They have another width, or the device is out of memory.
    #[doc(alias = "textual inversion")]
    pub fn with_embeddings(mut self, embeddings: &Tensor) -> Result<Self> {
        let (_, width) = embeddings.dims2()?;
        if width != self.config.hidden_size {
            return Err(Error::Input {
                network: NETWORK,
                found: format!("embeddings of {width} features"),
                wanted: format!("{} features", self.config.hidden_size),
            });
        }
        let options = self.model.options();
        let embeddings = embeddings
            .to_dtype(options.activation_type())?
            .to_device(&options.device)?;
        self.embeddings = Some(embeddings);
        Ok(self)
    }

    /// Encodes `texts`: rows of token ids of the same length.
    ///
    /// # Errors
    /// A token id or the length is out of range, more layers are skipped than there are, a pooled embedding
    /// is wanted of a network without a projection, a file is damaged, or the device fails.
    pub fn encode(&self, texts: &[Vec<u32>], wanted: Wanted) -> Result<Encoded> {
        let mut encoded = self.encode_each(&[texts], wanted)?;
        Ok(encoded.pop().expect("one batch has one result. This is a bug."))
    }

    /// Encodes each of `batches` like [`encode`](Self::encode), to the same bits, in one pass over the layers.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_each(&self, batches: &[&[Vec<u32>]], wanted: Wanted) -> Result<Vec<Encoded>> {
        let read = self.layers_before(wanted)?;
        let all = if wanted.pooled { self.layers.len() } else { read };
        let embedded = batches.iter().map(|texts| {
            let tokens = self.check_texts(texts)?;
            let x = self.embed(texts, tokens)?;
            Ok(Batch {
                mask: causal_mask(tokens, x.device())?,
                hidden: None,
                x,
            })
        });
        let mut embedded = embedded.collect::<Result<Vec<Batch>>>()?;
        for (index, layer) in self.layers.pass_of_first(all)?.enumerate() {
            let layer = layer?;
            for batch in &mut embedded {
                if index == read {
                    batch.hidden = Some(batch.x.clone());
                }
                batch.x = layer.forward(&batch.x, &batch.mask)?;
            }
        }
        let norm = self.norm.block(0)?;
        let projection = match wanted.pooled {
            true => Some(self.projection()?),
            false => None,
        };
        let projection = match &projection {
            Some(projection) => Some(projection.block(0)?),
            None => None,
        };
        let finished = batches.iter().zip(embedded).map(|(texts, batch)| {
            let hidden = batch.hidden.unwrap_or_else(|| batch.x.clone());
            let pool = |projection: &Projection| -> Result<Tensor> {
                let ends = layer_norm(&self.ends(texts, &batch.x)?, &norm)?;
                Ok(linear(&ends, &projection.0)?)
            };
            Ok(Encoded {
                hidden: match wanted.hidden {
                    Hidden::Normed => layer_norm(&hidden, &norm)?,
                    Hidden::Penultimate => hidden,
                },
                pooled: projection.as_deref().map(pool).transpose()?,
            })
        });
        finished.collect()
    }

    /// Checks that the encoder can give what is `wanted`. It reads no weights.
    ///
    /// # Errors
    /// More layers are skipped than there are, or a pooled embedding is wanted of a file without a
    /// projection.
    pub fn check(&self, wanted: Wanted) -> Result<()> {
        self.layers_before(wanted)?;
        if wanted.pooled {
            self.projection()?;
        }
        Ok(())
    }

    /// The projection of pooled embeddings.
    fn projection(&self) -> Result<Blocks<Projection>> {
        let config = self.config.clone();
        let projection = Blocks::single(self.whole.scope("text_projection"), move |weights| {
            Projection::new(weights, &config)
        });
        Ok(projection?)
    }

    /// Layers that run before the token embeddings are taken.
    fn layers_before(&self, wanted: Wanted) -> Result<usize> {
        let left_out = match wanted.hidden {
            Hidden::Normed => wanted.skip,
            Hidden::Penultimate => wanted.skip.saturating_add(1),
        };
        self.layers
            .len()
            .checked_sub(left_out)
            .ok_or_else(|| Error::Input {
                network: NETWORK,
                found: format!("a clip skip of {}", wanted.skip),
                wanted: format!("one below its {} layers", self.layers.len()),
            })
    }

    /// The embeddings of `x` at the ends of `texts`: `[texts, hidden_size]`.
    fn ends(&self, texts: &[Vec<u32>], x: &Tensor) -> Result<Tensor> {
        let ends = texts
            .iter()
            .enumerate()
            .map(|(text, ids)| x.narrow(0, text, 1)?.narrow(1, self.end_of(ids), 1));
        let ends = ends.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&ends, 0)?.squeeze(1)?)
    }

    /// Token plus position embeddings, `[texts, tokens, hidden_size]`. Only the rows that are needed are read
    /// from the tables.
    fn embed(&self, texts: &[Vec<u32>], tokens: usize) -> Result<Tensor> {
        let hidden_size = self.config.hidden_size;
        let ids = texts.iter().flatten().map(|&id| id as usize);
        let words = self.token_embeddings(&ids.collect::<Vec<_>>())?;
        let indices: Vec<usize> = (0..tokens).collect();
        let positions = self.positions.rows(&indices)?;
        let words = words.reshape((texts.len(), tokens, hidden_size))?;
        Ok(add_positions(&words, &converted(&positions, DType::F32)?)?)
    }

    /// The token embeddings of `ids`, `[ids, hidden_size]`: rows of the table, or of the added embeddings.
    fn token_embeddings(&self, ids: &[usize]) -> Result<Tensor> {
        let vocabulary = self.config.vocab_size;
        // Any row stands in for an added embedding.
        let in_table: Vec<usize> = ids
            .iter()
            .map(|&id| if id < vocabulary { id } else { 0 })
            .collect();
        let rows = self.tokens.rows(&in_table)?;
        let rows = converted(&rows, self.model.options().activation_type())?;
        let Some(embeddings) = self
            .embeddings
            .as_ref()
            .filter(|_| ids.iter().any(|&id| id >= vocabulary))
        else {
            return Ok(rows);
        };
        let places = ids.iter().enumerate();
        let places = places.map(|(place, &id)| match id.checked_sub(vocabulary) {
            Some(added) => (ids.len() + added) as u32,
            None => place as u32,
        });
        let places = Tensor::from_iter(places.collect::<Vec<_>>(), rows.device())?;
        Ok(Tensor::cat(&[&rows, embeddings], 0)?.index_select(&places, 0)?)
    }

    /// The position of a text's end token. Configurations with the end token 2 have a wrong one; there the
    /// end is the largest id of the vocabulary.
    fn end_of(&self, ids: &[u32]) -> usize {
        const WRONG_END: u32 = 2;
        let end = match self.config.eos_token_id {
            WRONG_END => {
                let in_table = ids.iter().filter(|&&id| (id as usize) < self.config.vocab_size);
                in_table.copied().max().unwrap_or_default()
            }
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or_default()
    }

    /// How many embeddings are added to the table.
    fn added(&self) -> usize {
        self.embeddings
            .as_ref()
            .map_or(0, |embeddings| embeddings.dims()[0])
    }

    /// The common length of all texts.
    fn check_texts(&self, texts: &[Vec<u32>]) -> Result<usize> {
        common_length(
            texts,
            NETWORK,
            Some(self.config.max_position_embeddings),
            self.config.vocab_size + self.added(),
        )
    }
}

impl Projection {
    fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let projection = layers::linear_without_bias(weights, config.hidden_size, config.projection_dim)?;
        Ok(Self(projection))
    }
}

/// The causal mask, `[tokens, tokens]`: 0 where a token (row) may attend, `-inf` at later tokens.
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
