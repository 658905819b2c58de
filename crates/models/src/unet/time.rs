//! The embedding of the timestep and the added conditions, which is computed once per run.

use candle_core::{DType, Device, Tensor};
use sd_ops::{Linear, broadcast_sum, converted, linear, linear_silu, silu, timestep_embedding};
use sd_weights::Weights;

use super::conditions::{AddedConditions, ConditioningInputs};
use super::config::Config;
use crate::{Result, layers};

/// The embedders of the network for everything but latents and text tokens.
#[derive(Debug)]
pub(crate) struct TimeEntry {
    time: [Linear; 2],
    guidance: Option<Linear>,
    added: Option<[Linear; 2]>,
    /// Features of the sinusoidal embeddings of a timestep and of a time id.
    spread: usize,
    time_id_features: usize,
}

impl TimeEntry {
    pub(crate) fn new(weights: &Weights, config: &Config) -> sd_weights::Result<Self> {
        let (width, spread) = (config.time_features(), config.block_out_channels[0]);
        let pair = |name: &str, inputs: usize| -> sd_weights::Result<[Linear; 2]> {
            let weights = weights.scope(name);
            Ok([
                layers::linear(&weights.scope("linear_1"), inputs, width)?,
                layers::linear(&weights.scope("linear_2"), width, width)?,
            ])
        };
        let guidance = |features: usize| {
            layers::linear_without_bias(&weights.scope("time_embedding.cond_proj"), features, spread)
        };
        let added = config.added_embedding();
        Ok(Self {
            time: pair("time_embedding", spread)?,
            guidance: config.time_cond_proj_dim.map(guidance).transpose()?,
            added: added
                .map(|added| pair("add_embedding", added.features))
                .transpose()?,
            spread,
            time_id_features: added.map_or(0, |added| added.time_id_features),
        })
    }

    /// The time embedding (diffusers: `emb`): timestep plus added conditions, after the silu with which every
    /// residual block begins. A row for every text of every step, `[steps * texts, features]`.
    pub(crate) fn embed(&self, inputs: &ConditioningInputs<'_>, activation_type: DType) -> Result<Tensor> {
        let device = inputs.context.device();
        let (steps, texts) = (inputs.timesteps.len(), inputs.context.dim(0)?);
        let timesteps = Tensor::from_slice(inputs.timesteps, steps, device)?;
        let mut time = converted(&timestep_embedding(&timesteps, self.spread)?, activation_type)?;
        if let (Some(scale), Some(projection)) = (inputs.guidance, &self.guidance) {
            let guidance = guidance_embedding(scale, projection.in_features(), device)?;
            time = broadcast_sum(
                &time,
                &linear(&converted(&guidance, activation_type)?, projection)?,
            )?;
        }
        let time = project(&time, &self.time)?.unsqueeze(1)?;
        let sum = match (&self.added, &inputs.added) {
            (Some(projections), Some(added)) => {
                let added = project(&self.embed_added(added, activation_type)?, projections)?;
                broadcast_sum(&time, &added.unsqueeze(0)?)?
            }
            _ => time.broadcast_as((steps, texts, time.dim(2)?))?.contiguous()?,
        };
        Ok(silu(&sum.reshape((steps * texts, ()))?)?)
    }

    /// The pooled text embeddings followed by the embedded time ids: `[texts, features]`.
    fn embed_added(&self, added: &AddedConditions<'_>, activation_type: DType) -> Result<Tensor> {
        let texts = added.time_ids.len();
        let time_ids = added.time_ids.concat();
        let time_ids = Tensor::from_slice(&time_ids, time_ids.len(), added.text_embeds.device())?;
        let time_ids = timestep_embedding(&time_ids, self.time_id_features)?.reshape((texts, ()))?;
        let text_embeds = converted(added.text_embeds, activation_type)?;
        Ok(Tensor::cat(
            &[text_embeds, converted(&time_ids, activation_type)?],
            1,
        )?)
    }
}

fn project(x: &Tensor, [first, second]: &[Linear; 2]) -> Result<Tensor> {
    Ok(linear(&linear_silu(x, first)?, second)?)
}

/// The sinusoidal embedding of a guidance scale, sines first: `[1, features]`. Luo et al., "Latent
/// Consistency Models", 2023, as diffusers' `get_guidance_scale_embedding` of the scale minus 1.
fn guidance_embedding(scale: f64, features: usize, device: &Device) -> candle_core::Result<Tensor> {
    const LONGEST_PERIOD: f64 = 10_000.0;
    let half = features / 2;
    // With the rounding of the reference in 32 bits: a phase is the product of large numbers.
    let fall = LONGEST_PERIOD.ln() as f32 / half.saturating_sub(1).max(1) as f32;
    let position = (scale - 1.0) as f32 * 1000.0;
    let phases = (0..half).map(|index| {
        let frequency = f64::from(index as f32 * -fall).exp() as f32;
        f64::from(position * frequency)
    });
    let mut values: Vec<f32> = phases.clone().map(|phase| phase.sin() as f32).collect();
    values.extend(phases.map(|phase| phase.cos() as f32));
    values.resize(features, 0.0);
    Tensor::from_vec(values, (1, features), device)
}
