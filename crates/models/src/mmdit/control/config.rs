//! What a ControlNet's `config.json` says of it.

use serde::Deserialize;

use super::NETWORK;
use crate::Result;
use crate::mmdit::block::{BlockKind, TextRole};
use crate::mmdit::{self, refuse_config};

/// The shape of a ControlNet. What is not there has diffusers' default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// The side of the latents that it was trained for.
    pub sample_size: usize,
    /// The side of a patch, in latents.
    pub patch_size: usize,
    /// Channels of the latents, and of the picture that it follows.
    pub in_channels: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Features of a head.
    pub attention_head_dim: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Features of a token of text; none where the text is not read.
    pub joint_attention_dim: Option<usize>,
    /// Features of the pooled text.
    pub pooled_projection_dim: usize,
    /// The side of its position table, in patches.
    pub pos_embed_max_size: Option<usize>,
    /// Which positions its own tokens have: `sincos`, or none.
    pub pos_embed_type: Option<String>,
    /// Whether it makes its tokens from latents itself, and does not take the transformer's.
    pub use_pos_embed: bool,
    /// Channels that the picture has beside the latents': a mask.
    pub extra_conditioning_channels: usize,
    /// How queries and keys are normed: `rms_norm`, or not at all.
    pub qk_norm: Option<String>,
    /// The blocks whose picture stream attends to itself a second time.
    pub dual_attention_layers: Vec<usize>,
    /// Whether it was trained without the pooled text, and then with latents that nothing was taken from.
    pub force_zeros_for_pooled_projection: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: Some(4096),
            pooled_projection_dim: 2048,
            pos_embed_max_size: Some(96),
            pos_embed_type: Some("sincos".to_owned()),
            use_pos_embed: true,
            extra_conditioning_channels: 0,
            qk_norm: None,
            dual_attention_layers: Vec::new(),
            force_zeros_for_pooled_projection: true,
        }
    }
}

impl Config {
    /// Features of a token inside: those of all heads.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the picture that it follows: those of latents, and what comes beside.
    pub fn picture_channels(&self) -> usize {
        self.in_channels.saturating_add(self.extra_conditioning_channels)
    }

    /// Why its pictures cannot steer those of a transformer of `config`, if so.
    pub fn mismatch(&self, config: &mmdit::Config) -> Option<String> {
        let context = self.joint_attention_dim.unwrap_or(config.joint_attention_dim);
        let pairs = [
            ("features inside", self.width(), config.width()),
            ("latents a patch's side", self.patch_size, config.patch_size),
            ("channels of latents", self.in_channels, config.in_channels),
            ("features of a token of text", context, config.joint_attention_dim),
            (
                "features of a pooled text",
                self.pooled_projection_dim,
                config.pooled_projection_dim,
            ),
        ];
        pairs
            .into_iter()
            .find(|(_, own, wanted)| own != wanted)
            .map(|(what, own, wanted)| format!("it has {own} {what}, and the model {wanted}"))
    }

    /// Whether its own tokens have positions.
    pub(super) fn has_positions(&self) -> bool {
        self.use_pos_embed && self.pos_embed_type.is_some()
    }

    /// Of the blocks, in order.
    pub(super) fn kinds(&self) -> Vec<BlockKind> {
        let reads_text = self.joint_attention_dim.is_some();
        let kind = |layer| BlockKind {
            attends_twice: reads_text && self.dual_attention_layers.contains(&layer),
            text: if reads_text {
                TextRole::Goes
            } else {
                TextRole::IsAbsent
            },
        };
        (0..self.num_layers).map(kind).collect()
    }

    /// The transformer that it has blocks of, once it is sure that this can be used.
    pub(super) fn network(&self) -> Result<mmdit::Config> {
        let longest = match self.pos_embed_max_size {
            Some(side) if self.has_positions() => side,
            None if self.has_positions() => {
                let reason = "pos_embed_max_size is null, and positions need a table".to_owned();
                return refuse_config(NETWORK, reason);
            }
            _ => 1 << 16,
        };
        if self.extra_conditioning_channels > 1 << 16 {
            let reason = format!(
                "extra_conditioning_channels is {}",
                self.extra_conditioning_channels
            );
            return refuse_config(NETWORK, reason);
        }
        if let Some(other) = self.pos_embed_type.as_deref().filter(|&kind| kind != "sincos") {
            let reason = format!("pos_embed_type is `{other}`, which is not known; sincos is");
            return refuse_config(NETWORK, reason);
        }
        let reads_text = self.joint_attention_dim.is_some();
        let config = mmdit::Config {
            sample_size: self.sample_size,
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            out_channels: None,
            num_layers: self.num_layers,
            attention_head_dim: self.attention_head_dim,
            num_attention_heads: self.num_attention_heads,
            joint_attention_dim: self.joint_attention_dim.unwrap_or(0),
            // Said of some that read no text, and then of none of their tensors.
            caption_projection_dim: self.width(),
            pooled_projection_dim: self.pooled_projection_dim,
            pos_embed_max_size: longest,
            // Blocks that read no text have no norms of queries and keys, whatever is said.
            qk_norm: self.qk_norm.clone().filter(|_| reads_text),
            dual_attention_layers: self.dual_attention_layers.clone(),
        };
        config.check(NETWORK)?;
        Ok(config)
    }
}
