//! What a CLIP text encoder's `config.json` says of it.

use serde::Deserialize;

use crate::{Error, Result};

/// The shape of a CLIP text encoder.
#[derive(Debug, Clone, Deserialize)]
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
    #[serde(default = "usual_epsilon")]
    pub layer_norm_eps: f64,
    /// Features of a text's pooled vector, in a network that projects it. A plain `CLIPTextModel` has a number here too,
    /// which means nothing.
    #[serde(default = "usual_projection")]
    pub projection_dim: usize,
    /// The token that a text ends with.
    #[serde(default = "usual_end")]
    pub eos_token_id: u32,
}

/// The activations that CLIP text encoders have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// Gelu by the error function.
    Gelu,
}

fn usual_epsilon() -> f64 {
    1e-5
}

fn usual_projection() -> usize {
    512
}

fn usual_end() -> u32 {
    49_407
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Config {
                network: "CLIP text encoder",
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
        if self.num_hidden_layers == 0 {
            return refuse("num_hidden_layers is 0".to_owned());
        }
        Ok(())
    }
}
