//! The transformers of Stable Diffusion 3 and 3.5 in diffusers, and in Stability AI's code.

use super::row::{Row, module, tensor};

/// In Stability AI's code. Its modulations without a gate have shift before scale.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    tensor("pos_embed.pos_embed",                            "pos_embed"),
    module("pos_embed.proj",                                 "x_embedder.proj"),
    module("time_text_embed.timestep_embedder.linear_1",     "t_embedder.mlp.0"),
    module("time_text_embed.timestep_embedder.linear_2",     "t_embedder.mlp.2"),
    module("time_text_embed.text_embedder.linear_1",         "y_embedder.mlp.0"),
    module("time_text_embed.text_embedder.linear_2",         "y_embedder.mlp.2"),
    module("context_embedder",                               "context_embedder"),
    module("transformer_blocks.{last}.norm1_context.linear", "joint_blocks.{last}.context_block.adaLN_modulation.1").halves_swapped(),
    module("transformer_blocks.{block}",                     "joint_blocks.{block}").inside(BLOCK),
    module("norm_out.linear",                                "final_layer.adaLN_modulation.1").halves_swapped(),
    module("proj_out",                                       "final_layer.linear"),
];

/// A joint block, where queries, keys and values of a stream are one fused projection.
#[rustfmt::skip]
const BLOCK: &[Row] = &[
    module("norm1.linear",          "x_block.adaLN_modulation.1"),
    module("attn.to_q",             "x_block.attn.qkv").third(0),
    module("attn.to_k",             "x_block.attn.qkv").third(1),
    module("attn.to_v",             "x_block.attn.qkv").third(2),
    module("attn.norm_q",           "x_block.attn.ln_q"),
    module("attn.norm_k",           "x_block.attn.ln_k"),
    module("attn.to_out.0",         "x_block.attn.proj"),
    module("attn2.to_q",            "x_block.attn2.qkv").third(0),
    module("attn2.to_k",            "x_block.attn2.qkv").third(1),
    module("attn2.to_v",            "x_block.attn2.qkv").third(2),
    module("attn2.norm_q",          "x_block.attn2.ln_q"),
    module("attn2.norm_k",          "x_block.attn2.ln_k"),
    module("attn2.to_out.0",        "x_block.attn2.proj"),
    module("ff.net.0.proj",         "x_block.mlp.fc1"),
    module("ff.net.2",              "x_block.mlp.fc2"),
    module("norm1_context.linear",  "context_block.adaLN_modulation.1"),
    module("attn.add_q_proj",       "context_block.attn.qkv").third(0),
    module("attn.add_k_proj",       "context_block.attn.qkv").third(1),
    module("attn.add_v_proj",       "context_block.attn.qkv").third(2),
    module("attn.norm_added_q",     "context_block.attn.ln_q"),
    module("attn.norm_added_k",     "context_block.attn.ln_k"),
    module("attn.to_add_out",       "context_block.attn.proj"),
    module("ff_context.net.0.proj", "context_block.mlp.fc1"),
    module("ff_context.net.2",      "context_block.mlp.fc2"),
];
