//! ControlNets for UNets in diffusers, and in their original code. Their down path is that of a UNet.

use super::row::{Row, module};

/// What a ControlNet has beside a down path: the entry of the control image, and a convolution for each
/// residual.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    module("controlnet_cond_embedding.conv_in",  "input_hint_block.0"),
    module("controlnet_cond_embedding.blocks.0", "input_hint_block.2"),
    module("controlnet_cond_embedding.blocks.1", "input_hint_block.4"),
    module("controlnet_cond_embedding.blocks.2", "input_hint_block.6"),
    module("controlnet_cond_embedding.blocks.3", "input_hint_block.8"),
    module("controlnet_cond_embedding.blocks.4", "input_hint_block.10"),
    module("controlnet_cond_embedding.blocks.5", "input_hint_block.12"),
    module("controlnet_cond_embedding.conv_out", "input_hint_block.14"),
    module("controlnet_down_blocks.{residual}",  "zero_convs.{residual}.0"),
    module("controlnet_mid_block",               "middle_block_out.0"),
];
