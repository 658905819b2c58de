//! What a CLIP text encoder's `config.json` says of it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::NETWORK;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS, MOST_TOKENS};
use crate::settings::refuse_others;
use crate::{Error, Result};

/// The shape of a CLIP text encoder. What is not there has the default of transformers' `CLIPTextConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Different tokens.
    pub vocab_size: usize,
    /// Features of a token.
    pub hidden_size: usize,
    /// Features inside of a feed-forward layer.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer's attention.
    pub num_attention_heads: usize,
    /// Most tokens of a text.
    pub max_position_embeddings: usize,
    /// The activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// The epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Features of a text's pooled vector, in a network that projects it. A plain `CLIPTextModel` has a
    /// number here too, which means nothing.
    pub projection_dim: usize,
    /// The token that a text ends with.
    pub eos_token_id: u32,
    /// All other settings, some of which must have their default.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The activations that CLIP text encoders have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// Gelu by the error function.
    Gelu,
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        match name.as_str() {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            _ => Err(format!("hidden_act is `{name}`; quick_gelu and gelu are known")),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            projection_dim: 512,
            eos_token_id: 49_407,
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
        let Self {
            hidden_size,
            num_attention_heads: heads,
            ..
        } = *self;
        if heads == 0 || hidden_size == 0 || hidden_size % heads != 0 {
            return refuse(format!(
                "hidden_size is {hidden_size}, which {heads} heads cannot share"
            ));
        }
        counts::check(
            NETWORK,
            MOST_LAYERS,
            &[("num_hidden_layers", self.num_hidden_layers)],
        )?;
        counts::check(NETWORK, MOST_TOKENS, &[("vocab_size", self.vocab_size)])?;
        let features = [
            ("hidden_size", hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("projection_dim", self.projection_dim),
        ];
        counts::check(NETWORK, MOST_FEATURES, &features)?;
        counts::check_finite(NETWORK, &[("layer_norm_eps", self.layer_norm_eps)])?;
        refuse_others(
            NETWORK,
            &self.others,
            &[
                ("model_type", json!("clip_text_model")),
                // A pipeline of diffusers then hides the padding from the encoder.
                ("use_attention_mask", json!(false)),
            ],
        )
    }
}
