//! The transformer's configuration, `transformer/config.json`.

use serde::Deserialize;

use super::block_kind::{BlockKind, ContextStream};
use super::refuse_config;
use crate::Result;
use crate::counts::{self, MOST_FEATURES, MOST_LAYERS};

/// The configuration of an `SD3Transformer2DModel`. Settings that are left out have diffusers' defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Rows and columns of the latents that the transformer was trained on.
    pub sample_size: usize,
    /// The side of a patch, in latents.
    pub patch_size: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction, where they differ from the latents'.
    pub out_channels: Option<usize>,
    /// Number of joint blocks.
    pub num_layers: usize,
    /// Features of an attention head.
    pub attention_head_dim: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Features of a text token, as the text encoders give it.
    pub joint_attention_dim: usize,
    /// Features of a text token inside the transformer.
    pub caption_projection_dim: usize,
    /// Features of the pooled text embedding.
    pub pooled_projection_dim: usize,
    /// The side of the position table, in patches.
    pub pos_embed_max_size: usize,
    /// How queries and keys are normalised: `rms_norm`, or not at all.
    pub qk_norm: Option<String>,
    /// Blocks whose image stream has a second self-attention.
    pub dual_attention_layers: Vec<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            out_channels: Some(16),
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            pos_embed_max_size: 96,
            qk_norm: None,
            dual_attention_layers: Vec::new(),
        }
    }
}

impl Config {
    /// Features of a token inside the transformer: those of all heads.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the prediction.
    pub fn predicted_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    pub(super) fn norms_queries(&self) -> bool {
        self.qk_norm.is_some()
    }

    /// The kinds of the blocks, in order. The text stream ends in the last one.
    pub(super) fn kinds(&self) -> Vec<BlockKind> {
        let kind = |layer| BlockKind {
            dual_attention: self.dual_attention_layers.contains(&layer),
            context: if layer + 1 == self.num_layers {
                ContextStream::KeysValuesOnly
            } else {
                ContextStream::Full
            },
        };
        (0..self.num_layers).map(kind).collect()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is impossible or not supported; the error names it.
    pub fn validate(&self) -> Result<()> {
        self.check(super::NETWORK)
    }

    pub(super) fn check(&self, network: &'static str) -> Result<()> {
        let refuse = |reason: String| refuse_config(network, reason);
        let counts = [
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ];
        counts::check(network, MOST_FEATURES, &counts)?;
        let dual = self.dual_attention_layers.len();
        counts::check(network, MOST_LAYERS, &[("num_layers", self.num_layers)])?;
        counts::check(
            network,
            MOST_LAYERS,
            &[("the length of dual_attention_layers", dual.max(1))],
        )?;
        counts::check(
            network,
            MOST_FEATURES,
            &[("out_channels", self.predicted_channels())],
        )?;
        // A ControlNet may read neither the text nor its pooled embedding.
        let texts = [
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        let texts = texts.map(|(name, features)| (name, features.max(1)));
        counts::check(network, MOST_FEATURES, &texts)?;
        counts::check(
            network,
            MOST_FEATURES,
            &[("attention_head_dim * num_attention_heads", self.width())],
        )?;
        if self.caption_projection_dim != self.width() {
            return refuse(format!(
                "caption_projection_dim is {} and must be attention_head_dim * num_attention_heads = {}",
                self.caption_projection_dim,
                self.width()
            ));
        }
        if !self.width().is_multiple_of(4) {
            return refuse(format!(
                "{} features cannot hold positions, which need a multiple of 4",
                self.width()
            ));
        }
        match self.qk_norm.as_deref() {
            None | Some("rms_norm") => Ok(()),
            Some(other) => refuse(format!("qk_norm is `{other}`, which is not known; rms_norm is")),
        }
    }
}
