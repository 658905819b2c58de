//! T5's relative position bias, which is added to attention scores.

use candle_core::{DType, Device, Tensor};
use sd_weights::{Result, Weights};

use super::Config;

/// One number for each bucket of distances and each head.
#[derive(Debug)]
pub(super) struct RelativePositions {
    /// `[classes, heads]`
    table: Tensor,
    buckets: usize,
    farthest: usize,
}

impl RelativePositions {
    pub(super) fn new(weights: &Weights, config: &Config) -> Result<Self> {
        let buckets = config.relative_attention_num_buckets;
        let table = weights.tensor("weight", &[buckets, config.num_heads])?;
        Ok(Self {
            table: table.to_dtype(DType::F32)?.to_device(&Device::Cpu)?,
            buckets,
            farthest: config.relative_attention_max_distance,
        })
    }

    /// The bias of a text of `tokens` tokens: `[heads, tokens, tokens]`.
    pub(super) fn bias(&self, tokens: usize, device: &Device) -> candle_core::Result<Tensor> {
        let classes: Vec<u32> = (0..tokens)
            .flat_map(|query| (0..tokens).map(move |key| (query, key)))
            .map(|(query, key)| self.class(query, key) as u32)
            .collect();
        let classes = Tensor::from_vec(classes, tokens * tokens, &Device::Cpu)?;
        let bias = self
            .table
            .index_select(&classes, 0)?
            .reshape((tokens, tokens, ()))?;
        bias.permute((2, 0, 1))?.contiguous()?.to_device(device)
    }

    /// The bucket of the distance from `query` to `key`. Half of the buckets are for keys after the query; of
    /// each half, the first half are single distances and the rest grow logarithmically.
    fn class(&self, query: usize, key: usize) -> usize {
        let half = self.buckets / 2;
        let offset = if key > query { half } else { 0 };
        let distance = query.abs_diff(key);
        let exact = half / 2;
        if distance < exact {
            return offset + distance;
        }
        // In 32 bits, as the reference computes it: the borders between classes depend on it.
        let share = (distance as f32 / exact as f32).ln() / (self.farthest as f32 / exact as f32).ln();
        let beyond = (share * (half - exact) as f32) as usize;
        offset + (exact + beyond).min(half - 1)
    }
}
