//! The transformer of Stable Diffusion 3 and 3.5: diffusers' `SD3Transformer2DModel`.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024. Two streams of
//! tokens, the picture's patches and the text, have weights of their own in every block and attend jointly.

mod block;
mod conditions;
mod config;
mod entry;
mod footprint;
mod head;
mod modulation;
mod patches;
mod position;
mod stream;

use candle_core::{DType, Tensor};
use sd_weights::{Blocks, Residency, Weights};

pub use conditions::Conditions;
pub use config::Config;
pub use footprint::Load;

use crate::{Error, Result};
use block::JointBlock;
use conditions::All;
use entry::Entry;
use head::Head;
use modulation::{AffineProjection, BlockProjections};
use patches::PatchEmbedding;
use position::positions;

/// The epsilon of the transformer's norms.
const NORM_EPSILON: f64 = 1e-6;

/// A transformer that predicts in which direction noisy latents lie from the picture to the noise.
#[derive(Debug)]
pub struct Transformer {
    config: Config,
    weights: Weights,
    entry: Blocks<Entry>,
    projections: Blocks<BlockProjections>,
    head_projection: Blocks<AffineProjection>,
    patches: Blocks<PatchEmbedding>,
    blocks: Blocks<JointBlock>,
    head: Blocks<Head>,
    activation_type: DType,
}

/// Latents, `[texts, in_channels, height, width]`, and what steers them.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The noisy latents, once for every text.
    pub latents: &'a Tensor,
    /// The texts.
    pub conditions: &'a Conditions,
}

impl Transformer {
    /// The transformer that `config` describes. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let activation_type = weights.holding().activation_type();
        let scopes = |weights: &Weights| -> Vec<Weights> {
            (0..config.num_layers)
                .map(|layer| weights.scope("transformer_blocks").scope(layer))
                .collect()
        };
        let (of_entry, of_projections, of_patches, of_blocks, of_head) = (
            config.clone(),
            config.clone(),
            config.clone(),
            config.clone(),
            config.clone(),
        );
        let width = config.width();
        // What is needed once a run never stays; what is small and needed in every step always does.
        let once = weights.for_one_pass();
        let always = weights.with_residency(Residency::Resident);
        Ok(Self {
            entry: Blocks::single(once.clone(), move |weights| Entry::new(weights, &of_entry)),
            projections: Blocks::new(scopes(&once), move |layer, weights| {
                BlockProjections::new(layer, weights, &of_projections)
            }),
            head_projection: Blocks::single(once.scope("norm_out"), move |weights| {
                AffineProjection::new(weights, width)
            }),
            patches: Blocks::single(always.clone(), move |weights| {
                PatchEmbedding::new(weights, &of_patches)
            }),
            blocks: Blocks::new(scopes(&weights), move |layer, weights| {
                JointBlock::new(layer, weights, &of_blocks)
            }),
            head: Blocks::single(always, move |weights| Head::new(weights, &of_head)),
            config: config.clone(),
            weights,
            activation_type,
        })
    }

    /// Reads every block that is to stay in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    pub fn load(&self) -> Result<()> {
        self.patches.load()?;
        self.blocks.load()?;
        Ok(self.head.load()?)
    }

    /// What steers the pictures of a run, for all of its steps: one pass over weights that are not needed again.
    ///
    /// - `timesteps`: one a step, from 0 to 1000
    /// - `context`: one vector a token of text, `[texts, tokens, joint_attention_dim]`
    /// - `pooled`: one vector a text, `[texts, pooled_projection_dim]`
    /// - `latents`: height and width of the latents, both multiples of the patch size
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn condition(
        &self,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
        latents: (usize, usize),
    ) -> Result<Conditions> {
        self.check_texts(context, pooled)?;
        self.check_size(latents)?;
        let context = context.to_dtype(self.activation_type)?;
        let pooled = pooled.to_dtype(self.activation_type)?;
        let entry = self.entry.block(0)?;
        let conditioning = entry.conditioning(timesteps, &pooled)?;
        let text = entry.context(&context)?;
        drop((entry, context));
        let mut blocks = Vec::with_capacity(self.projections.len());
        for projections in self.projections.pass()? {
            blocks.push(projections?.project(&conditioning)?);
        }
        self.projections.rest();
        let (height, width) = latents;
        let side = self.config.patch_size;
        Ok(Conditions::new(All {
            text,
            blocks,
            head: self.head_projection.block(0)?.project(&conditioning)?,
            positions: positions(&self.weights, &self.config, height / side, width / side)?,
            latents,
            steps: timesteps.len(),
            width: self.config.width(),
        })?)
    }

    /// The prediction for each of `inputs` at a step, counted from 0: `[texts, out_channels, height, width]` each. A
    /// block is used for all of them before the next one is.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn forward(&self, inputs: &[Input<'_>], step: usize) -> Result<Vec<Tensor>> {
        let patches = self.patches.block(0)?;
        let mut streams = Vec::with_capacity(inputs.len());
        for &Input { latents, conditions } in inputs {
            self.check_latents(latents, conditions, step)?;
            let latents = latents.to_dtype(self.activation_type)?;
            let image = patches.forward(&latents, conditions.positions())?;
            streams.push(Some((image, conditions.text()?)));
        }
        for (index, block) in self.blocks.pass()?.enumerate() {
            let block = block?;
            for (streams, input) in streams.iter_mut().zip(inputs) {
                // Taken out, so that the tokens go as soon as the block is through with them.
                if let Some((image, text)) = streams.take() {
                    let modulation = input.conditions.of_block(index, step)?;
                    *streams = Some(block.forward(image, text, &modulation)?);
                }
            }
        }
        let head = self.head.block(0)?;
        let predictions = streams
            .into_iter()
            .flatten()
            .zip(inputs)
            .map(|((image, _), input)| {
                let (height, width) = input.conditions.latents();
                head.forward(&image, &input.conditions.of_head(step)?, height, width)
            });
        predictions.collect()
    }

    fn check_size(&self, (height, width): (usize, usize)) -> Result<()> {
        let side = self.config.patch_size;
        let longest = self.config.pos_embed_max_size * side;
        if !height.is_multiple_of(side) || !width.is_multiple_of(side) || height.max(width) > longest {
            return refuse(
                format!("latents of {height} by {width}"),
                format!("sides that are multiples of {side} and at most {longest}"),
            );
        }
        Ok(())
    }

    fn check_latents(&self, latents: &Tensor, conditions: &Conditions, step: usize) -> Result<()> {
        let (height, width) = conditions.latents();
        let wanted = [conditions.texts(), self.config.in_channels, height, width];
        if latents.dims() != wanted {
            return refuse(format!("latents {:?}", latents.dims()), format!("{wanted:?}"));
        }
        if step >= conditions.steps() {
            return refuse(
                format!("step {step}"),
                format!("one of the {} that were prepared", conditions.steps()),
            );
        }
        Ok(())
    }

    fn check_texts(&self, context: &Tensor, pooled: &Tensor) -> Result<()> {
        let Config {
            joint_attention_dim,
            pooled_projection_dim,
            ..
        } = self.config;
        let (texts, tokens, _) = context.dims3()?;
        if context.dims() != [texts, tokens, joint_attention_dim] {
            return refuse(
                format!("a context {:?}", context.dims()),
                format!("[texts, tokens, {joint_attention_dim}]"),
            );
        }
        if pooled.dims() != [texts, pooled_projection_dim] {
            return refuse(
                format!("a pooled text {:?}", pooled.dims()),
                format!("[{texts}, {pooled_projection_dim}]"),
            );
        }
        Ok(())
    }
}

fn refuse(found: String, wanted: String) -> Result<()> {
    Err(Error::Input {
        network: "transformer",
        found,
        wanted,
    })
}
