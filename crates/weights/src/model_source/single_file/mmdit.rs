//! The configuration of the transformer of Stable Diffusion 3 and 3.5, from its tensors.

use serde_json::json;

use super::Settings;
use super::dimensions::{count, size};
use crate::Checkpoint;

/// Features of an attention head, where no norm of queries shows them.
const HEAD: usize = 64;

/// The tensors, where queries, keys and values that stable-diffusion.cpp writes one by one have the names of
/// diffusers: it calls them `qkv.weight`, `qkv.weight.1` and `qkv.weight.2`.
pub(super) fn with_whole_names(tensors: &Checkpoint) -> Checkpoint {
    const FUSED: [(&str, [&str; 3]); 3] = [
        ("x_block.attn.qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]),
        ("x_block.attn2.qkv", ["attn2.to_q", "attn2.to_k", "attn2.to_v"]),
        (
            "context_block.attn.qkv",
            ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
        ),
    ];
    tensors.renamed(|name| {
        let (block, inside) = name.strip_prefix("joint_blocks.")?.split_once('.')?;
        let (fused, names) = FUSED.iter().find(|(fused, _)| inside.starts_with(fused))?;
        let (kind, index) = match inside.strip_prefix(fused)?.strip_prefix('.')?.split_once('.') {
            Some((kind, index)) => (kind, index.parse::<usize>().ok()?),
            None => (inside.strip_prefix(fused)?.strip_prefix('.')?, 0),
        };
        let second = format!("joint_blocks.{block}.{fused}.{kind}.1");
        tensors.header(&second)?;
        let name = names.get(index)?;
        Some(format!("transformer_blocks.{block}.{name}.{kind}"))
    })
}

/// The configuration of a transformer with the names of diffusers.
pub(super) fn config(transformer: &Checkpoint) -> Settings {
    let block = |index: usize| format!("transformer_blocks.{index}");
    let layers = count(transformer, |index| format!("{}.attn.to_q.weight", block(index)));
    let width = size(transformer, "pos_embed.proj.weight", 0);
    let patch = size(transformer, "pos_embed.proj.weight", 2).max(1);
    let normed = size(transformer, "transformer_blocks.0.attn.norm_q.weight", 0);
    let head = if normed > 0 { normed } else { HEAD };
    let positions = transformer.header("pos_embed.pos_embed").map_or(0, |header| {
        // Some files drop the dimension of the batch.
        header.shape.iter().product::<usize>() / width.max(1)
    });
    let dual: Vec<usize> = (0..layers)
        .filter(|&index| {
            let query = format!("{}.attn2.to_q.weight", block(index));
            transformer.header(&query).is_some()
        })
        .collect();
    let mut config = Settings::new();
    let mut set = |name: &str, value| config.insert(name.to_owned(), value);
    set("_class_name", json!("SD3Transformer2DModel"));
    set("sample_size", json!(128));
    set("patch_size", json!(patch));
    set(
        "in_channels",
        json!(size(transformer, "pos_embed.proj.weight", 1)),
    );
    set(
        "out_channels",
        json!(size(transformer, "proj_out.weight", 0) / (patch * patch)),
    );
    set("num_layers", json!(layers));
    set("attention_head_dim", json!(head));
    set("num_attention_heads", json!(width / head));
    set(
        "joint_attention_dim",
        json!(size(transformer, "context_embedder.weight", 1)),
    );
    set(
        "caption_projection_dim",
        json!(size(transformer, "context_embedder.weight", 0)),
    );
    set(
        "pooled_projection_dim",
        json!(size(
            transformer,
            "time_text_embed.text_embedder.linear_1.weight",
            1
        )),
    );
    set("pos_embed_max_size", json!(positions.isqrt()));
    set("dual_attention_layers", json!(dual));
    if normed > 0 {
        set("qk_norm", json!("rms_norm"));
    }
    config
}
