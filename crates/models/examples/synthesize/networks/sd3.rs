//! The transformers of Stable Diffusion 3.5 and their ControlNets.

use sd_models::mmdit::Transformer;
use sd_models::mmdit::control::ControlNet;
use serde_json::{Value, json};

use super::{Tensor, parsed, read_by};

/// The transformer of Stable Diffusion 3.5: `SD3Transformer2DModel`.
pub(crate) struct Sd3 {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) table_side: usize,
    pub(crate) dual_attention_layers: usize,
    /// Features of a token of text.
    pub(crate) context: usize,
    /// Features of a pooled text.
    pub(crate) pooled: usize,
}

/// A ControlNet for one: `SD3ControlNetModel`.
pub(crate) struct Sd3Control {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Features of a token of text, of one that reads the text and has positions of its own.
    pub(crate) context: Option<usize>,
    /// Features of a pooled text.
    pub(crate) pooled: usize,
}

impl Sd3 {
    pub(crate) const HEAD: usize = 64;
    pub(crate) const CONTEXT: usize = 4096;
    pub(crate) const POOLED: usize = 2048;
    pub(crate) const CHANNELS: usize = 16;
    pub(crate) const PATCH: usize = 2;

    pub(crate) fn width(&self) -> usize {
        self.heads * Self::HEAD
    }

    /// `transformer/config.json`
    pub(crate) fn config(&self) -> Value {
        json!({
            "_class_name": "SD3Transformer2DModel",
            "sample_size": 128,
            "patch_size": Self::PATCH,
            "in_channels": Self::CHANNELS,
            "out_channels": Self::CHANNELS,
            "num_layers": self.layers,
            "attention_head_dim": Self::HEAD,
            "num_attention_heads": self.heads,
            "joint_attention_dim": self.context,
            "caption_projection_dim": self.width(),
            "pooled_projection_dim": self.pooled,
            "pos_embed_max_size": self.table_side,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0..self.dual_attention_layers).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = read_by(|weights| Transformer::new(weights, &parsed(self.config())).map(drop));
        tensors.push(positions(self.table_side, self.width()));
        tensors
    }
}

impl Sd3Control {
    const TABLE_SIDE: usize = 192;
    /// What Stability AI made for Large.
    pub(crate) const LARGE: Self = Self {
        layers: 19,
        heads: 38,
        context: None,
        pooled: Sd3::POOLED,
    };

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = read_by(|weights| ControlNet::new(weights, &parsed(self.config())).map(drop));
        if self.context.is_some() {
            tensors.push(positions(Self::TABLE_SIDE, self.heads * Sd3::HEAD));
        }
        tensors
    }

    /// `config.json`
    pub(crate) fn config(&self) -> Value {
        let reads_text = self.context.is_some();
        let own = |value: Value| if reads_text { value } else { Value::Null };
        json!({
            "_class_name": "SD3ControlNetModel",
            "sample_size": 128,
            "patch_size": Sd3::PATCH,
            "in_channels": Sd3::CHANNELS,
            "out_channels": Sd3::CHANNELS,
            "num_layers": self.layers,
            "attention_head_dim": Sd3::HEAD,
            "num_attention_heads": self.heads,
            "joint_attention_dim": self.context,
            "pooled_projection_dim": self.pooled,
            "pos_embed_max_size": own(json!(Self::TABLE_SIDE)),
            "pos_embed_type": own(json!("sincos")),
            "use_pos_embed": reads_text,
            "qk_norm": own(json!("rms_norm")),
            "dual_attention_layers": [],
            "extra_conditioning_channels": 0,
            "force_zeros_for_pooled_projection": reads_text,
        })
    }
}

/// The table of positions. Files have it; a network computes it where it is missing, and so does not request it.
fn positions(side: usize, width: usize) -> Tensor {
    Tensor::new("pos_embed.pos_embed".to_owned(), vec![1, side * side, width])
}
