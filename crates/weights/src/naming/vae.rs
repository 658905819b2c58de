//! Autoencoders in diffusers, in the original code of Stable Diffusion, and in early releases of diffusers.

use super::row::{Row, module};

/// In the original code, which counts the levels of the decoder from the last.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    module("encoder.conv_in",                                   "encoder.conv_in"),
    module("encoder.down_blocks.{level}.resnets.{layer}",       "encoder.down.{level}.block.{layer}").inside(RESIDUAL),
    module("encoder.down_blocks.{level}.downsamplers.0.conv",   "encoder.down.{level}.downsample.conv"),
    module("encoder.mid_block.resnets.0",                       "encoder.mid.block_1").inside(RESIDUAL),
    module("encoder.mid_block.attentions.0",                    "encoder.mid.attn_1").inside(ATTENTION),
    module("encoder.mid_block.resnets.1",                       "encoder.mid.block_2").inside(RESIDUAL),
    module("encoder.conv_norm_out",                             "encoder.norm_out"),
    module("encoder.conv_out",                                  "encoder.conv_out"),
    module("quant_conv",                                        "quant_conv"),
    module("post_quant_conv",                                   "post_quant_conv"),
    module("decoder.conv_in",                                   "decoder.conv_in"),
    module("decoder.mid_block.resnets.0",                       "decoder.mid.block_1").inside(RESIDUAL),
    module("decoder.mid_block.attentions.0",                    "decoder.mid.attn_1").inside(ATTENTION),
    module("decoder.mid_block.resnets.1",                       "decoder.mid.block_2").inside(RESIDUAL),
    module("decoder.up_blocks.{coder_level}.resnets.{layer}",   "decoder.up.{from_last}.block.{layer}").inside(RESIDUAL),
    module("decoder.up_blocks.{coder_level}.upsamplers.0.conv", "decoder.up.{from_last}.upsample.conv"),
    module("decoder.conv_norm_out",                             "decoder.norm_out"),
    module("decoder.conv_out",                                  "decoder.conv_out"),
];

/// A residual block.
#[rustfmt::skip]
const RESIDUAL: &[Row] = &[
    module("norm1",         "norm1"),
    module("conv1",         "conv1"),
    module("norm2",         "norm2"),
    module("conv2",         "conv2"),
    module("conv_shortcut", "nin_shortcut"),
];

/// The attention of a middle block. The original code has convolutions of single pixels for its projections.
#[rustfmt::skip]
const ATTENTION: &[Row] = &[
    module("group_norm", "norm"),
    module("to_q",       "q"),
    module("to_k",       "k"),
    module("to_v",       "v"),
    module("to_out.0",   "proj_out"),
];

/// In early releases of diffusers, in which only the attention had other names.
#[rustfmt::skip]
pub(super) const OLD_DIFFUSERS: &[Row] = &[
    module("encoder.mid_block.attentions.0", "encoder.mid_block.attentions.0").inside(OLD_ATTENTION),
    module("decoder.mid_block.attentions.0", "decoder.mid_block.attentions.0").inside(OLD_ATTENTION),
];

/// The attention of a middle block in early releases of diffusers.
#[rustfmt::skip]
const OLD_ATTENTION: &[Row] = &[
    module("group_norm", "group_norm"),
    module("to_q",       "query"),
    module("to_k",       "key"),
    module("to_v",       "value"),
    module("to_out.0",   "proj_attn"),
];
