//! Files that people try and that hold no supported model: what they are, by their tensors.

use super::super::FileContent;
use crate::{Checkpoint, Error, Result};

/// The first tensor that shows a family, without the prefix of the file, and the name of the family.
const FAMILIES: &[(&str, &str)] = &[
    ("double_stream_modulation_img.lin.weight", "FLUX.2"),
    ("distilled_guidance_layer.", "Chroma"),
    ("double_blocks.0.img_attn.", "FLUX.1"),
    ("single_transformer_blocks.0.", "FLUX.1"),
    ("double_blocks.0.", "HunyuanImage or HunyuanVideo"),
    ("transformer_blocks.0.img_mod.1.", "Qwen-Image"),
    ("llm_adapter.", "Anima"),
    ("txtfusion.", "Krea 2"),
    ("text_fusion.", "Krea 2"),
    ("cap_embedder.1.weight", "Lumina Image 2 or Z-Image"),
    ("layers.0.attention.qkv.", "Lumina Image 2 or Z-Image"),
    ("blocks.0.cross_attn.", "Wan"),
    ("mlp_t5.0.weight", "HunyuanDiT"),
    ("blocks.0.default_modulation", "HunyuanDiT"),
    ("double_layers.0.attn.w1q.", "AuraFlow"),
    ("joint_transformer_blocks.0.", "AuraFlow"),
    ("caption_projection.y_embedding", "PixArt"),
    ("adaln_single.emb.timestep_embedder", "PixArt or LTX-Video"),
    ("t_block.1.weight", "PixArt"),
    ("clip_txt_pooled_mapper.weight", "Stable Cascade"),
    ("clf.1.weight", "Stable Cascade"),
    ("blocks.0.adaln_modulation_cross_attn", "Cosmos"),
    ("net.blocks.0.", "Cosmos"),
    ("t5_yproj.weight", "Mochi"),
    ("time_caption_embed.", "OmniGen 2"),
    ("double_stream_blocks.0.", "HiDream"),
    ("caption_projection.0.linear.", "HiDream"),
    ("time_stack.", "Stable Video Diffusion"),
];

/// The prefixes of a denoising network.
const PREFIXES: [&str; 4] = ["model.diffusion_model.", "diffusion_model.", "transformer.", ""];

/// Refuses a file without a supported denoising network, if it holds a known other one, or, where it
/// `is_empty` of networks, something else that is known.
///
/// # Errors
/// It does.
pub(super) fn refuse(all: &Checkpoint, is_empty: bool) -> Result<()> {
    let content = if is_empty {
        content(all)
    } else {
        FileContent::Unknown
    };
    // A LoRA for a model of another family has names of that family too.
    if content != FileContent::Lora
        && let Some((family, tensor)) = other_family(all)
    {
        return Err(Error::OtherFamily {
            file: all.place().to_owned(),
            family,
            tensor: tensor.to_owned(),
        });
    }
    if !is_empty {
        return Ok(());
    }
    Err(Error::NoModel {
        file: all.place().to_owned(),
        what: content,
    })
}

/// The first of [`FAMILIES`] that a tensor shows, and the name of that tensor. Its order counts: some families
/// have all names of another and more.
fn other_family(all: &Checkpoint) -> Option<(&'static str, &str)> {
    let bare = |name| {
        let mut prefixes = PREFIXES.iter();
        prefixes
            .find_map(|prefix| str::strip_prefix(name, prefix))
            .unwrap_or(name)
    };
    FAMILIES.iter().find_map(|&(first, family)| {
        let (name, _) = all.tensors().find(|(name, _)| bare(name).starts_with(first))?;
        Some((family, name))
    })
}

/// What a file without networks holds.
fn content(all: &Checkpoint) -> FileContent {
    let mut names = all.tensors().map(|(name, _)| name);
    let is = |name: &str| {
        const LORA: [&str; 7] = [
            "lora_unet_",
            "lora_te",
            "lycoris_",
            ".lora_down.",
            ".lora_A.",
            ".lora.down.",
            ".lora_B.",
        ];
        const CONTROLNET: [&str; 4] = [
            "control_model.",
            "zero_convs.0.",
            "controlnet_cond_embedding.",
            "controlnet_down_blocks.0.",
        ];
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&LORA) {
            Some(FileContent::Lora)
        } else if has(&CONTROLNET) {
            Some(FileContent::ControlNet)
        } else if name.starts_with("taesd_") || name == "decoder.layers.0.weight" {
            Some(FileContent::Other("a tiny autoencoder (TAESD)"))
        } else if matches!(name, "emb_params" | "clip_l" | "clip_g") || name.contains("string_to_param") {
            Some(FileContent::Embedding)
        } else if matches!(name, "conv_first.weight" | "model.0.weight" | "body.0.weight") {
            Some(FileContent::Upscaler)
        } else {
            None
        }
    };
    names.find_map(is).unwrap_or(FileContent::Unknown)
}
