//! The configuration of a T5 encoder, its `config.json`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::NETWORK;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS, MOST_TOKENS};
use crate::settings::refuse_others;
use crate::{Error, Result};

/// The configuration of a T5 v1.1 encoder. Settings that are left out have the defaults of transformers'
/// `T5Config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub d_model: usize,
    /// Features of an attention head.
    pub d_kv: usize,
    /// Hidden features of a feed-forward layer.
    pub d_ff: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Number of buckets of the relative position bias.
    pub relative_attention_num_buckets: usize,
    /// The distance from which on all share a bucket.
    pub relative_attention_max_distance: usize,
    /// The epsilon of the RMS norms.
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
    /// Checks the settings.
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
                // Both follow from feed_forward_proj, but a value in the file counts.
                ("dense_act_fn", json!("gelu_new")),
                ("is_gated_act", json!(true)),
            ],
        )
    }
}
