//! What a T5 encoder's `config.json` says of it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::NETWORK;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS, MOST_TOKENS};
use crate::settings::refuse_others;
use crate::{Error, Result};

/// The shape of a T5 v1.1 encoder. What is not there has the default of transformers' `T5Config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
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
    pub relative_attention_num_buckets: usize,
    /// The distance from which on all are of one class.
    pub relative_attention_max_distance: usize,
    /// The epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// The kind of feed-forward layers: `gated-gelu`.
    pub feed_forward_proj: String,
    /// All other settings, some of which must have their default.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            others: Map::new(),
        }
    }
}

impl Config {
    /// Whether a network can be what this says.
    ///
    /// # Errors
    /// A setting is impossible or not supported; the error names it.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Config {
                network: NETWORK,
                reason,
            })
        };
        if self.feed_forward_proj != "gated-gelu" {
            return refuse(format!(
                "feed_forward_proj is `{}`; gated-gelu is known",
                self.feed_forward_proj
            ));
        }
        counts::check(NETWORK, MOST_LAYERS, &[("num_layers", self.num_layers)])?;
        counts::check(NETWORK, MOST_TOKENS, &[("vocab_size", self.vocab_size)])?;
        let features = [
            ("num_heads", self.num_heads),
            ("d_kv", self.d_kv),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            (
                "relative_attention_num_buckets",
                self.relative_attention_num_buckets,
            ),
            (
                "relative_attention_max_distance",
                self.relative_attention_max_distance,
            ),
        ];
        counts::check(NETWORK, MOST_FEATURES, &features)?;
        counts::check_finite(NETWORK, &[("layer_norm_epsilon", self.layer_norm_epsilon)])?;
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || !buckets.is_multiple_of(4) || self.relative_attention_max_distance <= buckets / 4 {
            let distance = self.relative_attention_max_distance;
            return refuse(format!(
                "{buckets} relative_attention_num_buckets up to a distance of {distance}"
            ));
        }
        refuse_others(
            NETWORK,
            &self.others,
            &[
                ("model_type", json!("t5")),
                // Both follow from feed_forward_proj, but what a file says of them counts.
                ("dense_act_fn", json!("gelu_new")),
                ("is_gated_act", json!(true)),
            ],
        )
    }
}
