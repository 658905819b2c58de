//! The encoder of T5 in transformers, and in GGUF files.

use super::row::{Row, module};

/// In GGUF files, as llama.cpp writes them.
#[rustfmt::skip]
pub(super) const GGUF: &[Row] = &[
    module("shared",                   "token_embd"),
    module("encoder.block.{layer}",    "enc.blk.{layer}").inside(GGUF_BLOCK),
    module("encoder.final_layer_norm", "enc.output_norm"),
];

/// A block in GGUF files.
#[rustfmt::skip]
const GGUF_BLOCK: &[Row] = &[
    module("layer.0.layer_norm",                            "attn_norm"),
    module("layer.0.SelfAttention.q",                       "attn_q"),
    module("layer.0.SelfAttention.k",                       "attn_k"),
    module("layer.0.SelfAttention.v",                       "attn_v"),
    module("layer.0.SelfAttention.o",                       "attn_o"),
    module("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
    module("layer.1.layer_norm",                            "ffn_norm"),
    module("layer.1.DenseReluDense.wi_0",                   "ffn_gate"),
    module("layer.1.DenseReluDense.wi_1",                   "ffn_up"),
    module("layer.1.DenseReluDense.wo",                     "ffn_down"),
];
