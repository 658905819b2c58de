//! How timestep and text enter a transformer: what is needed once a run.

use candle_core::Tensor;
use sd_ops::{Linear, linear, linear_silu, silu, timestep_embedding};
use sd_weights::Weights;

use super::Config;
use crate::{Result, layers};

/// Features that a timestep is spread over before its projection.
const TIMESTEP_FEATURES: usize = 256;

/// A transformer's entry for what is not the picture.
#[derive(Debug)]
pub(super) struct Entry {
    timestep: [Linear; 2],
    pooled: [Linear; 2],
    /// Where the text itself is read, not only what it sums up to.
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

    /// Text as tokens of the transformer's width, where it is read.
    pub(super) fn context(&self, context: &Tensor) -> Result<Option<Tensor>> {
        let of = |projection| linear(context, projection);
        Ok(self.context.as_ref().map(of).transpose()?)
    }

    /// What all modulations are made from: a timestep and a pooled text, through silu, which every modulation
    /// begins with. A row for every text of every step, `[steps * batch, width]`.
    pub(super) fn conditioning(&self, timesteps: &[f32], pooled: &Tensor) -> Result<Tensor> {
        let (steps, batch) = (timesteps.len(), pooled.dim(0)?);
        let timesteps = Tensor::from_slice(timesteps, steps, pooled.device())?;
        let timesteps = timestep_embedding(&timesteps, TIMESTEP_FEATURES)?.to_dtype(pooled.dtype())?;
        let project = |x: &Tensor, [first, second]: &[Linear; 2]| linear(&linear_silu(x, first)?, second);
        let timesteps = project(&timesteps, &self.timestep)?.unsqueeze(1)?;
        let pooled = project(pooled, &self.pooled)?.unsqueeze(0)?;
        let sum = timesteps.broadcast_add(&pooled)?;
        Ok(silu(&sum.reshape((steps * batch, ()))?)?)
    }
}
