//! The transformer of Stable Diffusion 3 and 3.5: diffusers' `SD3Transformer2DModel`.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024. The image
//! patches and the text are two streams of tokens (MM-DiT): each has its own weights in every block, and both
//! attend jointly. [`control`] has the ControlNets.

mod block;
mod block_kind;
mod conditioning;
mod conditions;
mod config;
pub mod control;
mod entry;
mod footprint;
mod head;
mod modulation;
mod parallel_batch;
mod patches;
mod position;
mod stream;
mod work;

use candle_core::{DType, Tensor};
use sd_ops::{converted, parallel_map, sum};
use sd_weights::{Blocks, Residency, Weights};

pub use conditions::Conditions;
pub use config::Config;

use crate::{Error, Result};
use block::{JointBlock, Tokens};
use block_kind::{BlockKind, ContextStream};
use conditioning::Conditioner;
use control::ControlPass;
use head::Head;
use modulation::AffineProjection;
use parallel_batch::ParallelBatch;
use patches::PatchEmbedding;
use position::Positions;

/// The epsilon of the transformer's norms.
const NORM_EPSILON: f64 = 1e-6;
/// The name of the network in errors.
const NETWORK: &str = "transformer";
/// The scope of the patch embedding.
const PATCHES: &str = "pos_embed.proj";

/// A transformer that predicts the velocity of rectified flow: the direction from the image latents to the
/// noise.
#[derive(Debug)]
pub struct Transformer {
    config: Config,
    kinds: Vec<BlockKind>,
    weights: Weights,
    conditioner: Conditioner,
    head_projection: Blocks<AffineProjection>,
    patches: Blocks<PatchEmbedding>,
    blocks: Blocks<JointBlock>,
    head: Blocks<Head>,
    positions: Positions,
    activation_type: DType,
}

/// Latents, `[texts, in_channels, height, width]`, and their conditions.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The noisy latents, repeated for every text.
    pub latents: &'a Tensor,
    /// The texts and their modulations.
    pub conditions: &'a Conditions,
}

impl Transformer {
    /// The transformer that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check(NETWORK)?;
        let activation_type = weights.options().activation_type();
        let kinds = config.kinds();
        let scopes = (0..kinds.len()).map(|layer| weights.scope("transformer_blocks").scope(layer));
        let (of_patches, of_blocks, of_head) = (config.clone(), config.clone(), config.clone());
        let (of_kinds, width) = (kinds.clone(), config.width());
        // Weights that are used once per run are never kept; small ones that every step uses always are.
        let once = weights.for_one_pass();
        let always = weights.with_residency(Residency::Resident);
        Ok(Self {
            conditioner: Conditioner::new(&weights, &kinds, config)?,
            head_projection: Blocks::single(once.scope("norm_out"), move |weights| {
                AffineProjection::new(weights, width)
            })?,
            patches: Blocks::single(always.scope(PATCHES), move |weights| {
                PatchEmbedding::new(weights, of_patches.in_channels, &of_patches)
            })?,
            blocks: Blocks::new(scopes, move |layer, weights| {
                JointBlock::new(of_kinds[layer], weights, &of_blocks)
            })?,
            head: Blocks::single(always, move |weights| Head::new(weights, &of_head))?,
            positions: Positions::new(&weights, config)?,
            config: config.clone(),
            kinds,
            weights,
            activation_type,
        })
    }

    /// Reads every block that stays in memory.
    ///
    /// # Errors
    /// A file is damaged, or the device is out of memory.
    pub fn load(&self) -> Result<()> {
        self.patches.load()?;
        self.blocks.load()?;
        Ok(self.head.load()?)
    }

    /// Computes the conditions of a run for all of its steps, in one pass over weights that are not used
    /// again.
    ///
    /// - `timesteps`: one for each step, from 0 to 1000
    /// - `context`: text embeddings, `[texts, tokens, joint_attention_dim]`
    /// - `pooled`: pooled text embeddings, `[texts, pooled_projection_dim]`
    /// - `latents`: height and width of the latents, both multiples of the patch size
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub fn condition(
        &self,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
        latents: (usize, usize),
    ) -> Result<Conditions> {
        let (conditioning, embedding) =
            self.conditioner
                .condition(timesteps, Some(context), pooled, latents, NETWORK)?;
        Ok(Conditions {
            conditioning,
            head: self.head_projection.block(0)?.project(&embedding)?,
            positions: self.positions.of(&self.config, latents)?,
        })
    }

    /// The prediction for each of `inputs` at a step, counted from 0: `[texts, out_channels, height, width]`
    /// each. The ControlNets of `controls` run interleaved with the transformer. Each block runs for all
    /// inputs before the next one.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub fn forward(
        &self,
        inputs: &[Input<'_>],
        controls: &[control::Control<'_>],
        step: usize,
    ) -> Result<Vec<Tensor>> {
        if controls.is_empty()
            && let Some(batch) = ParallelBatch::of(inputs)?
        {
            return batch.joined(&self.predict(&batch.inputs(), batch.texts(), &[], step)?);
        }
        self.predict(inputs, 1, controls, step)
    }

    /// The prediction for each of `inputs`, of which `at_once` run through a block in parallel.
    fn predict(
        &self,
        inputs: &[Input<'_>],
        at_once: usize,
        controls: &[control::Control<'_>],
        step: usize,
    ) -> Result<Vec<Tensor>> {
        let device = &self.weights.options().device;
        let patches = self.patches.block(0)?;
        let mut streams = Vec::with_capacity(inputs.len());
        for &Input { latents, conditions } in inputs {
            let conditioning = &conditions.conditioning;
            conditioning.check(latents, self.config.in_channels, step, NETWORK)?;
            let latents = converted(latents, self.activation_type)?;
            streams.push(Some(Tokens {
                image: patches.forward(&latents, Some(&conditions.positions))?,
                text: conditioning.text()?,
            }));
        }
        let begin = |control| ControlPass::begin(control, inputs, &streams, step);
        let mut control_passes = controls.iter().map(begin).collect::<Result<Vec<_>>>()?;
        for (index, block) in self.blocks.pass()?.enumerate() {
            let block = block?;
            for (streams, inputs) in streams.chunks_mut(at_once).zip(inputs.chunks(at_once)) {
                let mut parts = Vec::with_capacity(at_once);
                for (stream, input) in streams.iter_mut().zip(inputs) {
                    let modulation = input.conditions.conditioning.of_block(index, step)?;
                    // Moved out, so that the block can drop the tokens after their last use.
                    parts.extend(stream.take().map(|tokens| (tokens, modulation)));
                }
                let pass = |(tokens, modulation)| block.forward(tokens, &modulation);
                let passed = parallel_map(device, parts, pass);
                for (stream, tokens) in streams.iter_mut().zip(passed) {
                    *stream = Some(tokens?);
                }
            }
            drop(block);
            if self.kinds[index].context == ContextStream::KeysValuesOnly {
                continue;
            }
            for pass in &mut control_passes {
                let added = pass.after(index, self.kinds.len())?;
                for (tokens, added) in streams.iter_mut().flatten().zip(added) {
                    tokens.image = sum(&tokens.image, added)?;
                }
            }
        }
        drop(control_passes);
        let head = self.head.block(0)?;
        let predictions = streams.into_iter().flatten().zip(inputs).map(|(tokens, input)| {
            let (height, width) = input.conditions.latents();
            head.forward(&tokens.image, &input.conditions.of_head(step)?, height, width)
        });
        predictions.collect()
    }
}

fn refuse<T>(network: &'static str, found: String, wanted: String) -> Result<T> {
    Err(Error::Input {
        network,
        found,
        wanted,
    })
}

fn refuse_config<T>(network: &'static str, reason: String) -> Result<T> {
    Err(Error::Config { network, reason })
}
