//! Names of the layers of Stable Diffusion 3 in Stability AI's code, in which queries, keys and values are
//! one fused layer and the last modulations have shift before scale.

use super::KeyMap;

/// The layers of a block, and their names in Stability AI's code.
const IN_BLOCKS: [(&str, &str); 9] = [
    ("attn.to_out.0", "x_block.attn.proj"),
    ("attn2.to_out.0", "x_block.attn2.proj"),
    ("ff.net.0.proj", "x_block.mlp.fc1"),
    ("ff.net.2", "x_block.mlp.fc2"),
    ("norm1.linear", "x_block.adaLN_modulation.1"),
    ("attn.to_add_out", "context_block.attn.proj"),
    ("ff_context.net.0.proj", "context_block.mlp.fc1"),
    ("ff_context.net.2", "context_block.mlp.fc2"),
    ("norm1_context.linear", "context_block.adaLN_modulation.1"),
];

const OUTSIDE: [(&str, &str); 6] = [
    ("pos_embed.proj", "x_embedder.proj"),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    ("proj_out", "final_layer.linear"),
];

pub(super) fn add(key_map: &mut KeyMap, names: &[&str]) {
    for (name, theirs) in OUTSIDE {
        key_map.also(name, theirs);
    }
    key_map.halves_exchanged("norm_out.linear", "final_layer.adaLN_modulation.1");
    let blocks = names.iter().filter_map(|name| {
        name.strip_prefix("transformer_blocks.")?
            .strip_suffix(".attn.to_q")
    });
    for index in blocks {
        let block = |inner: &str| format!("transformer_blocks.{index}.{inner}");
        let theirs = |inner: &str| format!("joint_blocks.{index}.{inner}");
        let mut fused = |layers: [&str; 3], name: &str| {
            let layers = layers.map(block);
            key_map.joined(&layers.each_ref().map(String::as_str), &theirs(name));
        };
        fused(["attn.to_q", "attn.to_k", "attn.to_v"], "x_block.attn.qkv");
        fused(["attn2.to_q", "attn2.to_k", "attn2.to_v"], "x_block.attn2.qkv");
        fused(
            ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
            "context_block.attn.qkv",
        );
        let last_norm = block("norm1_context.linear");
        if key_map
            .size(&last_norm)
            .is_some_and(|(rows, columns)| rows == 2 * columns)
        {
            key_map.halves_exchanged(&last_norm, &theirs("context_block.adaLN_modulation.1"));
        }
        for (inner, name) in IN_BLOCKS {
            key_map.also(&block(inner), &theirs(name));
        }
    }
}
