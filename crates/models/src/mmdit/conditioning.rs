//! The conditioning of a transformer's blocks for all steps of a run: text tokens and modulations, computed
//! once.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use sd_ops::converted;
use sd_weights::{Blocks, Weights};

use super::block_kind::{BlockKind, ContextStream};
use super::entry::Entry;
use super::modulation::{BlockModulation, BlockProjections, Projected};
use super::{Config, refuse};
use crate::Result;

/// The layers of a transformer that run once per run: from timesteps and text embeddings to the conditioning
/// of the blocks.
#[derive(Debug)]
pub(super) struct Conditioner {
    entry: Blocks<Entry>,
    projections: Blocks<BlockProjections>,
    config: Config,
    activation_type: DType,
}

/// The text tokens, and the modulations of every block for every step.
///
/// A clone, or a part of the batch, shares the same tensors.
#[derive(Debug, Clone)]
pub(super) struct Conditioning {
    all: Arc<All>,
    texts: Range<usize>,
}

#[derive(Debug)]
struct All {
    /// `[texts, tokens, width]`; none if the network reads no text.
    text: Option<Tensor>,
    /// Of every block, with a row for every text of every step.
    blocks: Vec<Projected>,
    /// Rows and columns of the latents.
    latents: (usize, usize),
    steps: usize,
    texts: usize,
    width: usize,
}

impl Conditioner {
    /// The conditioner of a network with blocks of `kinds`. It reads no weights yet.
    ///
    /// # Errors
    /// The file does not hold what `config` describes.
    pub(super) fn new(weights: &Weights, kinds: &[BlockKind], config: &Config) -> Result<Self> {
        // These weights are used once per run and never kept.
        let once = weights.for_one_pass();
        let scopes = (0..kinds.len()).map(|layer| once.scope("transformer_blocks").scope(layer));
        let (of_entry, of_blocks, width) = (config.clone(), kinds.to_vec(), config.width());
        let reads_text = kinds.iter().any(|kind| kind.context != ContextStream::None);
        Ok(Self {
            projections: Blocks::new(scopes, move |layer, weights| {
                BlockProjections::new(of_blocks[layer], weights, width)
            })?,
            entry: Blocks::single(once, move |weights| Entry::new(weights, &of_entry, reads_text))?,
            config: config.clone(),
            activation_type: weights.options().activation_type(),
        })
    }

    /// The conditioning of the blocks for latents of the given rows and columns, and the time and text
    /// embedding from which all modulations are computed, with a row for every text of every step. `context`
    /// is given if the network reads text.
    ///
    /// # Errors
    /// A shape does not fit `network`, a file is damaged, or the device fails.
    pub(super) fn condition(
        &self,
        timesteps: &[f32],
        context: Option<&Tensor>,
        pooled: &Tensor,
        latents: (usize, usize),
        network: &'static str,
    ) -> Result<(Conditioning, Tensor)> {
        self.check(context, pooled, latents, network)?;
        let texts = pooled.dim(0)?;
        let entry = self.entry.block(0)?;
        let embedding = entry.time_text_embedding(timesteps, &converted(pooled, self.activation_type)?)?;
        let text = match context {
            Some(context) => entry.context(&converted(context, self.activation_type)?)?,
            None => None,
        };
        drop(entry);
        let mut blocks = Vec::with_capacity(self.projections.len());
        for projections in self.projections.pass()? {
            blocks.push(projections?.project(&embedding)?);
        }
        self.projections.rest();
        let all = All {
            text,
            blocks,
            latents,
            steps: timesteps.len(),
            texts,
            width: self.config.width(),
        };
        let conditioning = Conditioning {
            all: Arc::new(all),
            texts: 0..texts,
        };
        Ok((conditioning, embedding))
    }

    fn check(
        &self,
        context: Option<&Tensor>,
        pooled: &Tensor,
        (height, width): (usize, usize),
        network: &'static str,
    ) -> Result<()> {
        let Config {
            joint_attention_dim,
            pooled_projection_dim,
            patch_size: side,
            ..
        } = self.config;
        let (texts, _) = pooled.dims2()?;
        if pooled.dims() != [texts, pooled_projection_dim] {
            return refuse(
                network,
                format!("a pooled text {:?}", pooled.dims()),
                format!("[texts, {pooled_projection_dim}]"),
            );
        }
        if let Some(context) = context {
            let (_, tokens, _) = context.dims3()?;
            if context.dims() != [texts, tokens, joint_attention_dim] {
                return refuse(
                    network,
                    format!("a context {:?}", context.dims()),
                    format!("[{texts}, tokens, {joint_attention_dim}]"),
                );
            }
        }
        let longest = self.config.pos_embed_max_size * side;
        if !height.is_multiple_of(side) || !width.is_multiple_of(side) || height.max(width) > longest {
            return refuse(
                network,
                format!("latents of {height} by {width}"),
                format!("sides that are multiples of {side} and at most {longest}"),
            );
        }
        Ok(())
    }
}

impl Conditioning {
    /// Number of texts: the batch size of the latents.
    pub(super) fn texts(&self) -> usize {
        self.texts.len()
    }

    /// Number of steps that were prepared.
    pub(super) fn steps(&self) -> usize {
        self.all.steps
    }

    /// Rows and columns of the latents that the conditioning is for.
    pub(super) fn latents(&self) -> (usize, usize) {
        self.all.latents
    }

    /// The conditioning of the text at `index` only.
    pub(super) fn only(&self, index: usize) -> Self {
        assert!(index < self.texts(), "there is no text {index}");
        let first = self.texts.start + index;
        Self {
            all: self.all.clone(),
            texts: first..first + 1,
        }
    }

    /// Tokens of each text; 0 if the network reads no text.
    pub(super) fn text_tokens(&self) -> usize {
        self.all.text.as_ref().map_or(0, |text| text.dims()[1])
    }

    pub(super) fn text(&self) -> candle_core::Result<Option<Tensor>> {
        let these = |text: &Tensor| text.narrow(0, self.texts.start, self.texts());
        self.all.text.as_ref().map(these).transpose()
    }

    pub(super) fn of_block(&self, block: usize, step: usize) -> candle_core::Result<BlockModulation> {
        self.all.blocks[block].of_step(self.first_row(step), self.texts(), self.all.width)
    }

    /// Rows go by steps, and within a step by texts.
    pub(super) fn first_row(&self, step: usize) -> usize {
        step * self.all.texts + self.texts.start
    }

    /// Refuses latents of another shape, or a step that was not prepared, for a `network` with latents of
    /// `channels`.
    pub(super) fn check(
        &self,
        latents: &Tensor,
        channels: usize,
        step: usize,
        network: &'static str,
    ) -> Result<()> {
        let (height, width) = self.latents();
        let wanted = [self.texts(), channels, height, width];
        if latents.dims() != wanted {
            let found = format!("latents {:?}", latents.dims());
            return refuse(network, found, format!("{wanted:?}"));
        }
        if step >= self.steps() {
            let wanted = format!("one of the {} that were prepared", self.steps());
            return refuse(network, format!("step {step}"), wanted);
        }
        Ok(())
    }
}
