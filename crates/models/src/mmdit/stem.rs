//! How latents, text and timestep enter the transformer.

use candle_core::{DType, Tensor};
use sd_ops::{Linear, linear, silu, timestep_embedding};
use sd_weights::Weights;

use super::Config;
use super::position::positions;
use crate::{Result, layers};

/// Features that a timestep is spread over before its projection.
const TIMESTEP_FEATURES: usize = 256;

/// The transformer's entry.
#[derive(Debug)]
pub(super) struct Stem {
    config: Config,
    /// For the position table, of which a picture's part is read when its size is known.
    weights: Weights,
    patch: Linear,
    timestep: [Linear; 2],
    pooled: [Linear; 2],
    context: Linear,
}

impl Stem {
    pub(super) fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let width = config.width();
        let pair = |name: &str, inputs: usize| -> sd_weights::Result<[Linear; 2]> {
            let weights = weights.scope("time_text_embed").scope(name);
            Ok([
                layers::linear(&weights.scope("linear_1"), inputs, width)?,
                layers::linear(&weights.scope("linear_2"), width, width)?,
            ])
        };
        // A convolution whose stride is its kernel's side is a projection of patches.
        let (channels, side) = (config.in_channels, config.patch_size);
        let projection = weights.scope("pos_embed.proj");
        let kernel = projection.tensor("weight", &[width, channels, side, side])?;
        let kernel = kernel.reshape((width, channels * side * side))?;
        Ok(Self {
            patch: Linear::new(kernel, Some(projection.tensor("bias", &[width])?))?,
            timestep: pair("timestep_embedder", TIMESTEP_FEATURES)?,
            pooled: pair("text_embedder", config.pooled_projection_dim)?,
            context: layers::linear(
                &weights.scope("context_embedder"),
                config.joint_attention_dim,
                width,
            )?,
            config: config.clone(),
            weights: weights.clone(),
        })
    }

    /// Latents as tokens, one a patch, with their positions: `[batch, patches, width]`.
    pub(super) fn patches(&self, latents: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = latents.dims4()?;
        let side = self.config.patch_size;
        let (rows, columns) = (height / side, width / side);
        let patches = latents
            .reshape((batch, channels, rows, side, columns, side))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((batch, rows * columns, channels * side * side))?;
        let tokens = linear(&patches, &self.patch)?;
        let positions = positions(&self.weights, &self.config, rows, columns)?;
        Ok(tokens
            .to_dtype(DType::F32)?
            .broadcast_add(&positions)?
            .to_dtype(latents.dtype())?)
    }

    /// Text as tokens of the transformer's width.
    pub(super) fn context(&self, context: &Tensor) -> Result<Tensor> {
        Ok(linear(context, &self.context)?)
    }

    /// What all modulations of a step are made from, `[batch, width]`: the timestep and the pooled text, through
    /// silu, which every modulation begins with.
    pub(super) fn conditioning(&self, timesteps: &[f32], pooled: &Tensor) -> Result<Tensor> {
        let spread = TIMESTEP_FEATURES;
        let timesteps = Tensor::from_slice(timesteps, timesteps.len(), pooled.device())?;
        let timesteps = timestep_embedding(&timesteps, spread)?.to_dtype(pooled.dtype())?;
        let project = |x: &Tensor, [first, second]: &[Linear; 2]| linear(&silu(&linear(x, first)?)?, second);
        let sum = (project(&timesteps, &self.timestep)? + project(pooled, &self.pooled)?)?;
        Ok(silu(&sum)?)
    }
}
