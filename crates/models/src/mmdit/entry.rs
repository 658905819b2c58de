//! The embeddings of the timestep and the text, which are used once per run.

use candle_core::Tensor;
use sd_ops::{Linear, broadcast_sum, converted, linear, linear_silu, silu, timestep_embedding};
use sd_weights::Weights;

use super::Config;
use crate::{Result, layers};

/// Features of the sinusoidal timestep embedding.
pub(super) const TIMESTEP_FEATURES: usize = 256;

/// The embedders of a transformer for everything but the latents.
#[derive(Debug)]
pub(super) struct Entry {
    timestep: [Linear; 2],
    pooled: [Linear; 2],
    /// None if the network reads only the pooled text embedding.
    context: Option<Linear>,
}

impl Entry {
    pub(super) fn new(weights: &Weights, config: &Config, reads_text: bool) -> sd_weights::Result<Self> {
        let width = config.width();
        let pair = |name: &str, inputs: usize| -> sd_weights::Result<[Linear; 2]> {
            let weights = weights.scope("time_text_embed").scope(name);
            Ok([
                layers::linear(&weights.scope("linear_1"), inputs, width)?,
                layers::linear(&weights.scope("linear_2"), width, width)?,
            ])
        };
        Ok(Self {
            timestep: pair("timestep_embedder", TIMESTEP_FEATURES)?,
            pooled: pair("text_embedder", config.pooled_projection_dim)?,
            context: if reads_text {
                let weights = weights.scope("context_embedder");
                Some(layers::linear(&weights, config.joint_attention_dim, width)?)
            } else {
                None
            },
        })
    }

    /// Text embeddings as tokens of the transformer's width; none if the network reads no text.
    pub(super) fn context(&self, context: &Tensor) -> Result<Option<Tensor>> {
        let of = |projection| linear(context, projection);
        Ok(self.context.as_ref().map(of).transpose()?)
    }

    /// The embedding from which all modulations are computed (diffusers: `temb`): timestep plus pooled text
    /// embedding, after the silu with which every modulation begins. A row for every text of every step,
    /// `[steps * batch, width]`.
    pub(super) fn time_text_embedding(&self, timesteps: &[f32], pooled: &Tensor) -> Result<Tensor> {
        let (steps, batch) = (timesteps.len(), pooled.dim(0)?);
        let timesteps = Tensor::from_slice(timesteps, steps, pooled.device())?;
        let timesteps = converted(
            &timestep_embedding(&timesteps, TIMESTEP_FEATURES)?,
            pooled.dtype(),
        )?;
        let project = |x: &Tensor, [first, second]: &[Linear; 2]| linear(&linear_silu(x, first)?, second);
        let timesteps = project(&timesteps, &self.timestep)?.unsqueeze(1)?;
        let pooled = project(pooled, &self.pooled)?.unsqueeze(0)?;
        let sum = broadcast_sum(&timesteps, &pooled)?;
        Ok(silu(&sum.reshape((steps * batch, ()))?)?)
    }
}
