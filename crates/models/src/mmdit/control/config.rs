//! The configuration of a ControlNet, its `config.json`.

use serde::Deserialize;

use super::NETWORK;
use crate::Result;
use crate::mmdit::block_kind::{BlockKind, ContextStream};
use crate::mmdit::{self, refuse_config};

/// The configuration of an `SD3ControlNetModel`. Settings that are left out have diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Rows and columns of the latents that the network was trained on.
    pub sample_size: usize,
    /// The side of a patch, in latents.
    pub patch_size: usize,
    /// Channels of the latents and of the encoded control image.
    pub in_channels: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Features of an attention head.
    pub attention_head_dim: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Features of a text token; none if the network reads no text.
    pub joint_attention_dim: Option<usize>,
    /// Features of the pooled text embedding.
    pub pooled_projection_dim: usize,
    /// The side of the position table, in patches.
    pub pos_embed_max_size: Option<usize>,
    /// The position embedding of its tokens: `sincos`, or none.
    pub pos_embed_type: Option<String>,
    /// Whether it embeds the latents itself. Otherwise it takes the transformer's tokens.
    pub use_pos_embed: bool,
    /// Channels of the control image beyond those of the latents: a mask.
    pub extra_conditioning_channels: usize,
    /// How queries and keys are normalised: `rms_norm`, or not at all.
    pub qk_norm: Option<String>,
    /// Blocks whose image stream has a second self-attention.
    pub dual_attention_layers: Vec<usize>,
    /// Whether it was trained with zeros as the pooled text embedding. Those networks were also trained on
    /// control latents without the VAE's shift.
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
    /// Features of a token inside the network: those of all heads.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the control image: those of the latents and the extra ones.
    pub fn control_channels(&self) -> usize {
        self.in_channels.saturating_add(self.extra_conditioning_channels)
    }

    /// Why the network cannot be used with a transformer of `config`; none if it can.
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

    /// Whether its tokens have a position embedding of their own.
    pub(super) fn has_positions(&self) -> bool {
        self.use_pos_embed && self.pos_embed_type.is_some()
    }

    /// The kinds of the blocks, in order.
    pub(super) fn kinds(&self) -> Vec<BlockKind> {
        let reads_text = self.joint_attention_dim.is_some();
        let kind = |layer| BlockKind {
            dual_attention: reads_text && self.dual_attention_layers.contains(&layer),
            context: if reads_text {
                ContextStream::Full
            } else {
                ContextStream::None
            },
        };
        (0..self.num_layers).map(kind).collect()
    }

    /// The configuration of the transformer whose blocks it has, once the settings are checked.
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
            // Networks without text have a setting here that no tensor of theirs has.
            caption_projection_dim: self.width(),
            pooled_projection_dim: self.pooled_projection_dim,
            pos_embed_max_size: longest,
            // Blocks without text have no norms of queries and keys, whatever the setting says.
            qk_norm: self.qk_norm.clone().filter(|_| reads_text),
            dual_attention_layers: self.dual_attention_layers.clone(),
        };
        config.check(NETWORK)?;
        Ok(config)
    }
}
