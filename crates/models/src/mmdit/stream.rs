//! The query, key and value projections that each of the two streams has of its own.

use candle_core::Tensor;
use sd_ops::{Heads, Linear, RmsNorm, linear, rms_norm};
use sd_weights::{Result, Weights};

use super::{Config, NORM_EPSILON};
use crate::layers;

/// The tensor names of a stream's projections.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProjectionNames {
    query: &'static str,
    key: &'static str,
    value: &'static str,
    query_norm: &'static str,
    key_norm: &'static str,
}

impl ProjectionNames {
    pub(super) const IMAGE: Self = Self {
        query: "to_q",
        key: "to_k",
        value: "to_v",
        query_norm: "norm_q",
        key_norm: "norm_k",
    };
    pub(super) const TEXT: Self = Self {
        query: "add_q_proj",
        key: "add_k_proj",
        value: "add_v_proj",
        query_norm: "norm_added_q",
        key_norm: "norm_added_k",
    };
}

/// A stream's projections to queries, keys and values, with the norms of queries and keys.
#[derive(Debug)]
pub(super) struct HeadProjections {
    query: Linear,
    key: Linear,
    value: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
}

impl HeadProjections {
    pub(super) fn new(weights: &Weights, config: &Config, names: ProjectionNames) -> Result<Self> {
        let width = config.width();
        let projection = |name: &str| layers::linear(&weights.scope(name), width, width);
        let norm =
            |name: &str| layers::rms_norm(&weights.scope(name), config.attention_head_dim, NORM_EPSILON);
        Ok(Self {
            query: projection(names.query)?,
            key: projection(names.key)?,
            value: projection(names.value)?,
            norms: if config.norms_queries() {
                Some((norm(names.query_norm)?, norm(names.key_norm)?))
            } else {
                None
            },
            heads: config.num_attention_heads,
        })
    }

    pub(super) fn forward(&self, tokens: &Tensor) -> candle_core::Result<Heads> {
        let (batch, count, width) = tokens.dims3()?;
        let split = |projection: &Linear, norm: Option<&RmsNorm>| {
            let heads =
                linear(tokens, projection)?.reshape((batch, count, self.heads, width / self.heads))?;
            norm.map_or_else(|| Ok(heads.clone()), |norm| rms_norm(&heads, norm))
        };
        let (query_norm, key_norm) = self.norms.as_ref().map(|(query, key)| (query, key)).unzip();
        Ok(Heads {
            queries: split(&self.query, query_norm)?,
            keys: split(&self.key, key_norm)?,
            values: split(&self.value, None)?,
        })
    }
}
