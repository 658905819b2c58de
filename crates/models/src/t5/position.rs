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
        let (distances, heads) = ((2 * tokens).saturating_sub(1), self.table.dim(1)?);
        let table: Vec<f32> = self.table.flatten_all()?.to_vec1()?;
        // The bias depends on the distance alone, from the farthest key before a query to the farthest one after it.
        let classes: Vec<usize> = (0..distances)
            .map(|index| {
                self.class(
                    (tokens - 1).saturating_sub(index),
                    index.saturating_sub(tokens - 1),
                )
            })
            .collect();
        let mut bias = Vec::with_capacity(heads * tokens * tokens);
        for head in 0..heads {
            let line: Vec<f32> = classes.iter().map(|class| table[class * heads + head]).collect();
            for query in 0..tokens {
                bias.extend_from_slice(&line[tokens - 1 - query..][..tokens]);
            }
        }
        Tensor::from_vec(bias, (heads, tokens, tokens), device)
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
