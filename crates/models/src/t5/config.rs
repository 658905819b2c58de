//! What a T5 encoder's `config.json` says of it.

use serde::Deserialize;

use crate::{Error, Result};

/// The shape of a T5 v1.1 encoder.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Different tokens.
    pub vocab_size: usize,
    /// Features of a token.
    pub d_model: usize,
    /// Features of a head.
    pub d_kv: usize,
    /// Features inside of a feed-forward layer.
    pub d_ff: usize,
    /// Layers.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: usize,
    /// Classes of distances between two tokens.
    #[serde(default = "usual_buckets")]
    pub relative_attention_num_buckets: usize,
    /// The distance from which on all are of one class.
    #[serde(default = "usual_distance")]
    pub relative_attention_max_distance: usize,
    /// The epsilon of the norms.
    #[serde(default = "usual_epsilon")]
    pub layer_norm_epsilon: f64,
    /// The kind of feed-forward layers: `gated-gelu`.
    pub feed_forward_proj: String,
}

fn usual_buckets() -> usize {
    32
}

fn usual_distance() -> usize {
    128
}

fn usual_epsilon() -> f64 {
    1e-6
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Config {
                network: "T5 text encoder",
                reason,
            })
        };
        if self.feed_forward_proj != "gated-gelu" {
            return refuse(format!(
                "feed_forward_proj is `{}`; gated-gelu is known",
                self.feed_forward_proj
            ));
        }
        let counts = [
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("d_kv", self.d_kv),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return refuse(format!("{name} is 0"));
        }
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || !buckets.is_multiple_of(4) || self.relative_attention_max_distance <= buckets / 4 {
            let distance = self.relative_attention_max_distance;
            return refuse(format!(
                "{buckets} relative_attention_num_buckets up to a distance of {distance}"
            ));
        }
        Ok(())
    }
}
