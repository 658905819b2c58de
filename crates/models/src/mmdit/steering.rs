//! What steers the blocks of a transformer in all steps of a run: modulations and the text, computed once.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use sd_weights::{Blocks, Weights};

use super::block::{BlockKind, TextRole};
use super::entry::Entry;
use super::modulation::{BlockModulation, BlockProjections, Projected};
use super::{Config, refuse};
use crate::Result;

/// The part of a transformer that is needed once a run: from timesteps and texts to what steers its blocks.
#[derive(Debug)]
pub(super) struct Conditioner {
    entry: Blocks<Entry>,
    projections: Blocks<BlockProjections>,
    config: Config,
    activation_type: DType,
}

/// Texts as tokens, and the modulations of every block for every step.
///
/// Cloning it, or taking some of its texts, copies nothing.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    all: Arc<All>,
    texts: Range<usize>,
}

#[derive(Debug)]
struct All {
    /// `[texts, tokens, width]`, where it is read.
    text: Option<Tensor>,
    /// Of every block, a row for every text of every step.
    blocks: Vec<Projected>,
    /// Rows and columns of the latents.
    latents: (usize, usize),
    steps: usize,
    texts: usize,
    width: usize,
}

impl Conditioner {
    /// That of a network of `kinds` of blocks. Nothing is read yet.
    ///
    /// # Errors
    /// The file does not hold what `config` describes.
    pub(super) fn new(weights: &Weights, kinds: &[BlockKind], config: &Config) -> Result<Self> {
        // What is needed once a run never stays.
        let once = weights.for_one_pass();
        let scopes = (0..kinds.len()).map(|layer| once.scope("transformer_blocks").scope(layer));
        let (of_entry, of_blocks, width) = (config.clone(), kinds.to_vec(), config.width());
        let reads_text = kinds.iter().any(|kind| kind.text != TextRole::IsAbsent);
        Ok(Self {
            projections: Blocks::new(scopes, move |layer, weights| {
                BlockProjections::new(of_blocks[layer], weights, width)
            })?,
            entry: Blocks::single(once, move |weights| Entry::new(weights, &of_entry, reads_text))?,
            config: config.clone(),
            activation_type: weights.options().activation_type(),
        })
    }

    /// What steers the blocks for latents of so many rows and columns, and what all modulations are made from: a row for
    /// every text of every step. The `context` is given where the text is read.
    ///
    /// # Errors
    /// A shape does not fit `network`, a file is wrong, or the device fails.
    pub(super) fn steer(
        &self,
        timesteps: &[f32],
        context: Option<&Tensor>,
        pooled: &Tensor,
        latents: (usize, usize),
        network: &'static str,
    ) -> Result<(Steering, Tensor)> {
        self.check(context, pooled, latents, network)?;
        let texts = pooled.dim(0)?;
        let entry = self.entry.block(0)?;
        let conditioning = entry.conditioning(timesteps, &pooled.to_dtype(self.activation_type)?)?;
        let text = match context {
            Some(context) => entry.context(&context.to_dtype(self.activation_type)?)?,
            None => None,
        };
        drop(entry);
        let mut blocks = Vec::with_capacity(self.projections.len());
        for projections in self.projections.pass()? {
            blocks.push(projections?.project(&conditioning)?);
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
        let steering = Steering {
            all: Arc::new(all),
            texts: 0..texts,
        };
        Ok((steering, conditioning))
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

impl Steering {
    /// How many texts there are: the batch that latents must come in.
    pub(super) fn texts(&self) -> usize {
        self.texts.len()
    }

    /// How many steps were prepared.
    pub(super) fn steps(&self) -> usize {
        self.all.steps
    }

    /// Rows and columns of the latents that this was made for.
    pub(super) fn latents(&self) -> (usize, usize) {
        self.all.latents
    }

    /// That of the text at `index` alone.
    pub(super) fn only(&self, index: usize) -> Self {
        assert!(index < self.texts(), "there is no text {index}");
        let first = self.texts.start + index;
        Self {
            all: self.all.clone(),
            texts: first..first + 1,
        }
    }

    /// Tokens of each text; none where it is not read.
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

    /// Refuses what was not prepared, of a `network` whose latents have so many `channels`.
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
