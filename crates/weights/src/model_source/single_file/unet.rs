//! The family and the configuration of a UNet, from its tensors.

use serde_json::{Value, json};

use super::Settings;
use super::dimensions::{count, size};
use crate::{Checkpoint, Error, ModelFamily, Result};

/// Features of an attention head, in all families but Stable Diffusion 1, which has 8 heads everywhere.
const HEAD: usize = 64;
const HEADS_OF_1: usize = 8;
/// Features of the embedding of each of the sizes that condition SDXL.
const SIZE_FEATURES: usize = 256;
/// The sizes that condition the refiner. Beside them is the pooled text of its only text encoder, which is as
/// wide as the context.
const SIZES_OF_REFINER: usize = 5;

/// The family of a UNet.
///
/// # Errors
/// It is that of a model that is not supported.
pub(super) fn family(unet: &Checkpoint) -> Result<ModelFamily> {
    let refuse = |family: &'static str, tensor: &str| {
        Err(Error::OtherFamily {
            file: unet.place().to_owned(),
            family,
            tensor: tensor.to_owned(),
        })
    };
    if let Some((name, _)) = unet.tensors().find(|(name, _)| name.contains("time_stack")) {
        return refuse("Stable Video Diffusion", name);
    }
    match size(unet, "conv_in.weight", 1) {
        5 => return refuse("Stable Diffusion 2 with depth maps", "conv_in.weight"),
        7 => return refuse("the upscaler of Stable Diffusion 2", "conv_in.weight"),
        8 => return refuse("InstructPix2Pix", "conv_in.weight"),
        _ => {}
    }
    let context = context_features(unet);
    let added = size(unet, "add_embedding.linear_1.weight", 1);
    Ok(match (added > 0, context) {
        (true, _) if added == context + SIZES_OF_REFINER * SIZE_FEATURES => {
            ModelFamily::StableDiffusionXlRefiner
        }
        (true, 1024) => {
            return refuse(
                "Stable Diffusion 2 for image embeddings (unCLIP)",
                "label_emb.0.0.weight",
            );
        }
        (true, _) => ModelFamily::StableDiffusionXl,
        (false, 768) => ModelFamily::StableDiffusion1,
        (false, 1024) => ModelFamily::StableDiffusion2,
        (false, _) if has_convolutions(unet) => ModelFamily::StableDiffusion1,
        (false, _) => ModelFamily::StableDiffusion2,
    })
}

/// Features of a text token.
fn context_features(unet: &Checkpoint) -> usize {
    let key = unet
        .tensors()
        .find(|(name, _)| name.ends_with(".attn2.to_k.weight"));
    key.and_then(|(_, header)| header.shape.get(1))
        .copied()
        .unwrap_or(0)
}

/// Whether the text tokens have as many features as in the releases of SDXL.
pub(super) fn has_width_of_xl(unet: &Checkpoint) -> bool {
    context_features(unet) == 2048
}

/// Whether the projections around transformers are convolutions of single pixels.
fn has_convolutions(unet: &Checkpoint) -> bool {
    let mut projections = unet
        .tensors()
        .filter(|(name, _)| name.ends_with(".proj_in.weight"));
    projections
        .next()
        .is_some_and(|(_, header)| header.shape.len() > 2)
}

/// The configuration of a UNet.
pub(super) fn config(unet: &Checkpoint, family: ModelFamily) -> Settings {
    let levels = count(unet, |level| {
        format!("down_blocks.{level}.resnets.0.conv1.weight")
    });
    let channels: Vec<usize> = (0..levels)
        .map(|level| size(unet, &format!("down_blocks.{level}.resnets.0.conv1.weight"), 0))
        .collect();
    let layers = (0..levels).map(|level| {
        count(unet, |layer| {
            format!("down_blocks.{level}.resnets.{layer}.conv1.weight")
        })
    });
    let attends = |side: &str, level: usize| {
        let first = format!("{side}_blocks.{level}.attentions.0.proj_in.weight");
        unet.header(&first).is_some()
    };
    let types = |side: &str, attending: &str, plain: &str| -> Vec<String> {
        let kind = |level| if attends(side, level) { attending } else { plain };
        (0..levels).map(|level| kind(level).to_owned()).collect()
    };
    let depth = |attention: String| {
        count(unet, |block| {
            format!("{attention}.transformer_blocks.{block}.norm1.weight")
        })
    };
    let middle = depth("mid_block.attentions.0".to_owned());
    let depths = |side: &str| -> Vec<Value> {
        let of_level = |level: usize| {
            let attentions = count(unet, |layer| {
                format!("{side}_blocks.{level}.attentions.{layer}.proj_in.weight")
            });
            let depths: Vec<usize> = (0..attentions)
                .map(|layer| depth(format!("{side}_blocks.{level}.attentions.{layer}")))
                .collect();
            match depths.as_slice() {
                // Of the last level the middle block takes its depth.
                [] => json!(middle.max(1)),
                [first, others @ ..] if others.iter().all(|other| other == first) => json!(first),
                several => json!(several),
            }
        };
        (0..levels).map(of_level).collect()
    };
    let down_depths = depths("down");
    let up_depths = depths("up");
    let has_middle = unet.header("mid_block.resnets.0.conv1.weight").is_some();
    let heads: Value = match family {
        ModelFamily::StableDiffusion1 => json!(HEADS_OF_1),
        _ => channels
            .iter()
            .map(|&channels| (channels / HEAD).max(1))
            .collect(),
    };
    let mut config = Settings::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("_class_name", json!("UNet2DConditionModel"));
    set("in_channels", json!(size(unet, "conv_in.weight", 1)));
    set("out_channels", json!(size(unet, "conv_out.weight", 0)));
    set("sample_size", json!(sample_size(family)));
    set(
        "down_block_types",
        json!(types("down", "CrossAttnDownBlock2D", "DownBlock2D")),
    );
    set(
        "up_block_types",
        json!(types("up", "CrossAttnUpBlock2D", "UpBlock2D")),
    );
    set(
        "mid_block_type",
        match (has_middle, middle) {
            (false, _) => Value::Null,
            (true, 0) => json!("UNetMidBlock2D"),
            (true, _) => json!("UNetMidBlock2DCrossAttn"),
        },
    );
    set("norm_num_groups", json!(groups(&channels)));
    set("block_out_channels", json!(channels));
    set("layers_per_block", layers.collect());
    set("cross_attention_dim", json!(context_features(unet)));
    if up_depths.iter().rev().ne(&down_depths)
        && is_attended(&up_depths, &down_depths, &|level| attends("up", level))
    {
        set("reverse_transformer_layers_per_block", json!(up_depths));
    }
    set("transformer_layers_per_block", json!(down_depths));
    set("attention_head_dim", heads);
    set("use_linear_projection", json!(!has_convolutions(unet)));
    let times = size(unet, "time_embedding.linear_1.weight", 0);
    if times != 4 * size(unet, "conv_in.weight", 0) {
        set("time_embedding_dim", json!(times));
    }
    let guidance = size(unet, "time_embedding.cond_proj.weight", 1);
    if guidance > 0 {
        set("time_cond_proj_dim", json!(guidance));
    }
    let added = size(unet, "add_embedding.linear_1.weight", 1);
    if added > 0 {
        set("addition_embed_type", json!("text_time"));
        set("addition_time_embed_dim", json!(SIZE_FEATURES));
        set("projection_class_embeddings_input_dim", json!(added));
    }
    config
}

/// Whether the depths of an up path say more than those of the down path reversed: they differ in a level
/// that attends.
fn is_attended(up: &[Value], down: &[Value], attends: &dyn Fn(usize) -> bool) -> bool {
    let reversed = down.iter().rev();
    let mut levels = up.iter().zip(reversed).enumerate();
    levels.any(|(level, (up, down))| attends(level) && first(up) != first(down))
}

/// The depth of the first attention of a level.
fn first(depth: &Value) -> &Value {
    depth.get(0).unwrap_or(depth)
}

/// Rows and columns of the latents that a family was trained on.
fn sample_size(family: ModelFamily) -> usize {
    match family {
        ModelFamily::StableDiffusion1 => 64,
        ModelFamily::StableDiffusion2 => 96,
        _ => 128,
    }
}

/// The groups of group norms: 32 in all models, or as many as the channels have.
pub(super) fn groups(channels: &[usize]) -> usize {
    const GROUPS: usize = 32;
    let mut groups = GROUPS;
    while groups > 1 && channels.iter().any(|channels| !channels.is_multiple_of(groups)) {
        groups /= 2;
    }
    groups
}
