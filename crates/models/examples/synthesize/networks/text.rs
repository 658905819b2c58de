//! The text encoders of CLIP and T5.

use sd_models::clip::{self, Hidden, Wanted};
use sd_models::t5;
use sd_weights::Naming;
use serde_json::{Value, json};

use super::{Tensor, parsed, read_by};

/// The end of a text in the demo model's CLIP tokenizers.
const CLIP_END: usize = 979;

/// A text encoder of CLIP: `CLIPTextModel`, or with a projection `CLIPTextModelWithProjection`.
pub(crate) struct Clip {
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) activation: &'static str,
    pub(crate) projects: bool,
}

impl Clip {
    pub(crate) const VOCABULARY: usize = 49_408;
    pub(crate) const POSITIONS: usize = 77;
    /// OpenAI's ViT-L/14.
    pub(crate) const LARGE: Self = Self {
        width: 768,
        layers: 12,
        heads: 12,
        activation: "quick_gelu",
        projects: false,
    };
    /// OpenCLIP's ViT-H/14, of which Stable Diffusion 2 leaves the last layer out.
    pub(crate) const HUGE: Self = Self {
        width: 1024,
        layers: 23,
        heads: 16,
        activation: "gelu",
        projects: false,
    };
    /// OpenCLIP's ViT-bigG/14.
    pub(crate) const BIG: Self = Self {
        width: 1280,
        layers: 32,
        heads: 20,
        activation: "gelu",
        projects: true,
    };

    /// `text_encoder/config.json`
    pub(crate) fn config(&self) -> Value {
        let class = if self.projects {
            "CLIPTextModelWithProjection"
        } else {
            "CLIPTextModel"
        };
        json!({
            "architectures": [class],
            "vocab_size": Self::VOCABULARY,
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": Self::POSITIONS,
            "hidden_act": self.activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": self.width,
            "eos_token_id": CLIP_END,
        })
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let tensors = read_by(|weights| {
            let encoder = clip::TextEncoder::new(weights, &parsed(self.config()))?;
            encoder.check(Wanted {
                hidden: Hidden::Normed,
                skip: 0,
                pooled: self.projects,
            })
        });
        // The encoder reads names with and without `text_model.`; these files have it.
        let bare = Naming::BARE_CLIP.translation([]);
        let named = tensors.into_iter().map(|Tensor { name, shape, .. }| {
            let full = bare.diffusers_names(&name).pop();
            Tensor::new(full.map_or(name, |full| full.name), shape)
        });
        named.collect()
    }
}

/// The encoder of T5 v1.1: `T5EncoderModel`.
pub(crate) struct T5 {
    pub(crate) width: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
}

impl T5 {
    pub(crate) const XXL: Self = Self {
        width: 4096,
        inner: 10_240,
        layers: 24,
        heads: 64,
        vocabulary: 32_128,
    };

    /// `text_encoder_3/config.json`
    pub(crate) fn config(&self) -> Value {
        json!({
            "architectures": ["T5EncoderModel"],
            "vocab_size": self.vocabulary,
            "d_model": self.width,
            "d_kv": self.width / self.heads,
            "d_ff": self.inner,
            "num_layers": self.layers,
            "num_heads": self.heads,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "gated-gelu",
        })
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        read_by(|weights| t5::TextEncoder::new(weights, &parsed(self.config())).map(drop))
    }
}
