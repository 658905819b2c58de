//! The transformer of Stable Diffusion 3 and 3.5: diffusers' `SD3Transformer2DModel`.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024. Two streams of
//! tokens, the picture's patches and the text, have weights of their own in every block and attend jointly.
//! [`control`] has its ControlNets.

mod apart;
mod block;
mod conditions;
mod config;
pub mod control;
mod entry;
mod footprint;
mod head;
mod modulation;
mod patches;
mod position;
mod steering;
mod stream;

use candle_core::{DType, Tensor};
use sd_ops::{side_by_side, sum};
use sd_weights::{Blocks, Residency, Weights};

pub use conditions::Conditions;
pub use config::Config;

use crate::{Error, Result};
use apart::Apart;
use block::{BlockKind, JointBlock, TextRole, Tokens};
use control::Walk;
use head::Head;
use modulation::AffineProjection;
use patches::PatchEmbedding;
use position::Positions;
use steering::Conditioner;

/// The epsilon of the transformer's norms.
const NORM_EPSILON: f64 = 1e-6;
/// The name of the network in errors.
const NETWORK: &str = "transformer";
/// Where the projection of patches lies.
const PATCHES: &str = "pos_embed.proj";

/// A transformer that predicts in which direction noisy latents lie from the picture to the noise.
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
    /// The configuration cannot be used, or the file does not hold what it describes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check(NETWORK)?;
        let activation_type = weights.options().activation_type();
        let kinds = config.kinds();
        let scopes = (0..kinds.len()).map(|layer| weights.scope("transformer_blocks").scope(layer));
        let (of_patches, of_blocks, of_head) = (config.clone(), config.clone(), config.clone());
        let (of_kinds, width) = (kinds.clone(), config.width());
        // What is needed once a run never stays; what is small and needed in every step always does.
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
        let (steering, conditioning) =
            self.conditioner
                .steer(timesteps, Some(context), pooled, latents, NETWORK)?;
        Ok(Conditions {
            steering,
            head: self.head_projection.block(0)?.project(&conditioning)?,
            positions: self.positions.of(&self.config, latents)?,
        })
    }

    /// The prediction for each of `inputs` at a step, counted from 0: `[texts, out_channels, height, width]` each, with
    /// `controls` beside. A block is used for all of them before the next one is.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn forward(
        &self,
        inputs: &[Input<'_>],
        controls: &[control::Control<'_>],
        step: usize,
    ) -> Result<Vec<Tensor>> {
        if controls.is_empty()
            && let Some(apart) = Apart::of(inputs)?
        {
            return apart.joined(&self.predict(&apart.inputs(), apart.texts(), &[], step)?);
        }
        self.predict(inputs, 1, controls, step)
    }

    /// The prediction for each of `inputs`, of which `at_once` pass through a block side by side.
    fn predict(
        &self,
        inputs: &[Input<'_>],
        at_once: usize,
        controls: &[control::Control<'_>],
        step: usize,
    ) -> Result<Vec<Tensor>> {
        let on_processor = self.weights.options().device.is_cpu();
        let patches = self.patches.block(0)?;
        let mut streams = Vec::with_capacity(inputs.len());
        for &Input { latents, conditions } in inputs {
            let steering = &conditions.steering;
            steering.check(latents, self.config.in_channels, step, NETWORK)?;
            let latents = latents.to_dtype(self.activation_type)?;
            streams.push(Some(Tokens {
                image: patches.forward(&latents, Some(&conditions.positions))?,
                text: steering.text()?,
            }));
        }
        let begin = |control| Walk::begin(control, inputs, &streams, step);
        let mut walks = controls.iter().map(begin).collect::<Result<Vec<_>>>()?;
        for (index, block) in self.blocks.pass()?.enumerate() {
            let block = block?;
            for (streams, inputs) in streams.chunks_mut(at_once).zip(inputs.chunks(at_once)) {
                let mut parts = Vec::with_capacity(at_once);
                for (stream, input) in streams.iter_mut().zip(inputs) {
                    let modulation = input.conditions.steering.of_block(index, step)?;
                    // Taken out, so that the tokens go as soon as the block is through with them.
                    parts.extend(stream.take().map(|tokens| (tokens, modulation)));
                }
                let pass = |(tokens, modulation)| block.forward(tokens, &modulation);
                let passed = if on_processor {
                    side_by_side(parts, pass)
                } else {
                    parts.into_iter().map(pass).collect()
                };
                for (stream, tokens) in streams.iter_mut().zip(passed) {
                    *stream = Some(tokens?);
                }
            }
            drop(block);
            if self.kinds[index].text == TextRole::Ends {
                continue;
            }
            for walk in &mut walks {
                let added = walk.after(index, self.kinds.len())?;
                for (tokens, added) in streams.iter_mut().flatten().zip(added) {
                    tokens.image = sum(&tokens.image, added)?;
                }
            }
        }
        drop(walks);
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
