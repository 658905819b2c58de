//! UNets in diffusers, and in the original code of Stable Diffusion and SDXL.

use super::row::{Row, module};

/// The down path and the middle block, which a ControlNet has too.
#[rustfmt::skip]
pub(super) const DOWN: &[Row] = &[
    module("time_embedding.linear_1",                 "time_embed.0"),
    module("time_embedding.linear_2",                 "time_embed.2"),
    module("add_embedding.linear_1",                  "label_emb.0.0"),
    module("add_embedding.linear_2",                  "label_emb.0.2"),
    module("conv_in",                                 "input_blocks.0.0"),
    module("down_blocks.{level}.downsamplers.0.conv", "input_blocks.{downsampler}.0.op"),
    module("down_blocks.{level}.resnets.{layer}",     "input_blocks.{input}.0").inside(RESIDUAL),
    module("down_blocks.{level}.attentions.{layer}",  "input_blocks.{input}.1"),
    module("mid_block.resnets.0",                     "middle_block.0").inside(RESIDUAL),
    module("mid_block.attentions.0",                  "middle_block.1"),
    module("mid_block.resnets.1",                     "middle_block.2").inside(RESIDUAL),
];

/// The up path.
#[rustfmt::skip]
pub(super) const UP: &[Row] = &[
    // Before the attention, whose place an upsampler has where there is none.
    module("up_blocks.{level}.upsamplers.0.conv",  "output_blocks.{upsampler}.{slot}.conv"),
    module("up_blocks.{level}.resnets.{layer}",    "output_blocks.{output}.0").inside(RESIDUAL),
    module("up_blocks.{level}.attentions.{layer}", "output_blocks.{output}.1"),
    module("conv_norm_out",                        "out.0"),
    module("conv_out",                             "out.2"),
];

/// A residual block. The names inside of a transformer are the same in both.
#[rustfmt::skip]
const RESIDUAL: &[Row] = &[
    module("norm1",         "in_layers.0"),
    module("conv1",         "in_layers.2"),
    module("time_emb_proj", "emb_layers.1"),
    module("norm2",         "out_layers.0"),
    module("conv2",         "out_layers.3"),
    module("conv_shortcut", "skip_connection"),
];

#[cfg(test)]
mod tests {
    use crate::Naming;

    /// Layers that stand for those of SDXL: 2, 2 and 2 residual blocks down, 3, 3 and 3 up.
    fn sdxl() -> Vec<String> {
        let mut names = Vec::new();
        for level in 0..3 {
            for place in 0..3 {
                if place < 2 {
                    names.push(format!("down_blocks.{level}.resnets.{place}.conv1"));
                }
                names.push(format!("up_blocks.{level}.resnets.{place}.conv1"));
                if level < 2 {
                    names.push(format!("up_blocks.{level}.attentions.{place}.proj_in"));
                }
            }
        }
        names
    }

    #[test]
    fn blocks_are_numbered_through() {
        let names = sdxl();
        let translation = Naming::UNET.translation(names.iter().map(String::as_str));
        let original = |name: &str| translation.other_name(name).map(|found| found.name);
        for (name, expected) in [
            ("down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            (
                "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
                "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
            ),
            ("down_blocks.2.attentions.1.proj_out", "input_blocks.8.1.proj_out"),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
            ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
            ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
            (
                "up_blocks.2.resnets.0.conv_shortcut",
                "output_blocks.6.0.skip_connection",
            ),
        ] {
            assert_eq!(original(name).as_deref(), Some(expected));
        }
        assert_eq!(original("up_blocks.7.resnets.0.conv1"), None);
        // Stable Diffusion 1 has no attention in its first level on the way up.
        let without_attention = Naming::UNET.translation(["up_blocks.0.resnets.2.conv1"]);
        let upsampler = without_attention.other_name("up_blocks.0.upsamplers.0.conv");
        assert_eq!(upsampler.unwrap().name, "output_blocks.2.1.conv");
    }
}
