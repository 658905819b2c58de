//! The configuration of a CLIP text encoder, its `config.json`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::NETWORK;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS, MOST_TOKENS};
use crate::settings::refuse_others;
use crate::{Error, Result};

/// The configuration of a CLIP text encoder. Settings that are left out have the defaults of transformers'
/// `CLIPTextConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub hidden_size: usize,
    /// Hidden features of a feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Maximum number of tokens.
    pub max_position_embeddings: usize,
    /// The activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// The epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Features of pooled embeddings, in a network with a projection. A plain `CLIPTextModel` has this
    /// setting too, without a meaning.
    pub projection_dim: usize,
    /// The end token.
    pub eos_token_id: u32,
    /// All other settings, some of which must have their default.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The activations of CLIP text encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// GELU by the error function.
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
