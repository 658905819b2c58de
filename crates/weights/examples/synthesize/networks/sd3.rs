//! The transformers of Stable Diffusion 3.5 and their ControlNets.

use serde_json::{Value, json};

use super::{List, Tensor};

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

/// The part that the text tokens have in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContextStream {
    Full,
    KeysValuesOnly,
    None,
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

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let width = self.width();
        let mut list = List::default();
        patches(&mut list, width, self.table_side);
        time_and_text(&mut list, width, self.pooled);
        list.linear("context_embedder", self.context, width);
        for layer in 0..self.layers {
            let context = if layer + 1 == self.layers {
                ContextStream::KeysValuesOnly
            } else {
                ContextStream::Full
            };
            block(
                &mut list,
                layer,
                width,
                context,
                layer < self.dual_attention_layers,
            );
        }
        list.linear("norm_out.linear", width, 2 * width);
        list.linear("proj_out", width, Self::PATCH * Self::PATCH * Self::CHANNELS);
        list.0
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
        let width = self.heads * Sd3::HEAD;
        let mut list = List::default();
        time_and_text(&mut list, width, self.pooled);
        if let Some(context) = self.context {
            patches(&mut list, width, Self::TABLE_SIDE);
            list.linear("context_embedder", context, width);
        }
        list.conv2d("pos_embed_input.proj", Sd3::CHANNELS, width, Sd3::PATCH);
        for layer in 0..self.layers {
            let context = match self.context {
                Some(_) => ContextStream::Full,
                None => ContextStream::None,
            };
            block(&mut list, layer, width, context, false);
            list.linear(&format!("controlnet_blocks.{layer}"), width, width);
        }
        list.0
    }

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

fn patches(list: &mut List, width: usize, table_side: usize) {
    list.conv2d("pos_embed.proj", Sd3::CHANNELS, width, Sd3::PATCH);
    list.table("pos_embed.pos_embed", &[1, table_side * table_side, width]);
}

fn time_and_text(list: &mut List, width: usize, pooled: usize) {
    for (name, inputs) in [("timestep_embedder", 256), ("text_embedder", pooled)] {
        list.linear(&format!("time_text_embed.{name}.linear_1"), inputs, width);
        list.linear(&format!("time_text_embed.{name}.linear_2"), width, width);
    }
}

fn block(list: &mut List, layer: usize, width: usize, context: ContextStream, dual_attention: bool) {
    let name = format!("transformer_blocks.{layer}");
    let parts = if dual_attention { 9 } else { 6 };
    list.linear(&format!("{name}.norm1.linear"), width, parts * width);
    let mut projections = vec!["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"];
    let mut norms = vec![];
    let mut streams = vec!["ff"];
    if context != ContextStream::None {
        let parts = if context == ContextStream::KeysValuesOnly {
            2
        } else {
            6
        };
        list.linear(&format!("{name}.norm1_context.linear"), width, parts * width);
        projections.extend(["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]);
        norms.extend([
            "attn.norm_q",
            "attn.norm_k",
            "attn.norm_added_q",
            "attn.norm_added_k",
        ]);
    }
    if context == ContextStream::Full {
        projections.push("attn.to_add_out");
        streams.push("ff_context");
    }
    if dual_attention {
        projections.extend(["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]);
        norms.extend(["attn2.norm_q", "attn2.norm_k"]);
    }
    for projection in projections {
        list.linear(&format!("{name}.{projection}"), width, width);
    }
    for norm in norms {
        list.scale(&format!("{name}.{norm}"), Sd3::HEAD);
    }
    for stream in streams {
        list.linear(&format!("{name}.{stream}.net.0.proj"), width, 4 * width);
        list.linear(&format!("{name}.{stream}.net.2"), 4 * width, width);
    }
}
