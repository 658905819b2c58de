//! CLIP's text encoders in transformers, in OpenCLIP, and in older LoRA files.

use super::row::{Row, module, tensor};

/// In OpenCLIP, where queries, keys and values are one fused projection.
#[rustfmt::skip]
pub(super) const OPEN_CLIP: &[Row] = &[
    module("text_model.embeddings.token_embedding",           "token_embedding"),
    tensor("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    module("text_model.encoder.layers.{layer}",               "transformer.resblocks.{layer}").inside(OPEN_CLIP_LAYER),
    module("text_model.final_layer_norm",                     "ln_final"),
    tensor("text_projection.weight",                          "text_projection").transposed(),
    // Some programs write it as transformers does.
    tensor("text_projection.weight",                          "text_projection.weight"),
];

/// A layer in OpenCLIP.
#[rustfmt::skip]
const OPEN_CLIP_LAYER: &[Row] = &[
    module("layer_norm1",             "ln_1"),
    tensor("self_attn.q_proj.weight", "attn.in_proj_weight").third(0),
    tensor("self_attn.k_proj.weight", "attn.in_proj_weight").third(1),
    tensor("self_attn.v_proj.weight", "attn.in_proj_weight").third(2),
    tensor("self_attn.q_proj.bias",   "attn.in_proj_bias").third(0),
    tensor("self_attn.k_proj.bias",   "attn.in_proj_bias").third(1),
    tensor("self_attn.v_proj.bias",   "attn.in_proj_bias").third(2),
    module("self_attn.out_proj",      "attn.out_proj"),
    module("layer_norm2",             "ln_2"),
    module("mlp.fc1",                 "mlp.c_fc"),
    module("mlp.fc2",                 "mlp.c_proj"),
];

/// Without the name of the text encoder inside of a whole CLIP model.
#[rustfmt::skip]
pub(super) const BARE: &[Row] = &[
    module("text_model.embeddings",       "embeddings"),
    module("text_model.encoder",          "encoder"),
    module("text_model.final_layer_norm", "final_layer_norm"),
];

/// In the attention processors of diffusers.
pub(super) const PROCESSORS: &[Row] = &[module(
    "text_model.encoder.layers.{layer}.self_attn",
    "text_model.encoder.layers.{layer}.self_attn",
)
.inside(PROCESSOR)];

/// An attention processor of diffusers.
#[rustfmt::skip]
const PROCESSOR: &[Row] = &[
    module("q_proj",   "to_q"),
    module("k_proj",   "to_k"),
    module("v_proj",   "to_v"),
    module("out_proj", "to_out"),
];
