//! The configuration of an autoencoder, from its tensors and the denoising network that it is for.

use serde_json::{Value, json};

use super::super::NetworkKind;
use super::Settings;
use super::dimensions::{count, size};
use super::unet::groups;
use crate::{Checkpoint, Error, ModelFamily, Result};

/// Refuses autoencoders of other models.
///
/// # Errors
/// It is one that quantises latents, or one for videos.
pub(super) fn refuse_others(vae: &Checkpoint) -> Result<()> {
    let refuse = |family: &'static str, tensor: &str| {
        Err(Error::OtherFamily {
            file: vae.place().to_owned(),
            family,
            tensor: tensor.to_owned(),
        })
    };
    if vae.header("quantize.embedding.weight").is_some() {
        return refuse(
            "an autoencoder that quantises latents (VQ)",
            "quantize.embedding.weight",
        );
    }
    if let Some((name, _)) = vae.tensors().find(|(_, header)| header.shape.len() > 4) {
        return refuse("an autoencoder for videos", name);
    }
    Ok(())
}

/// The configuration of an autoencoder with the names of diffusers, without its scale.
pub(super) fn config(vae: &Checkpoint) -> Settings {
    // The decoder is there in every file, the encoder is not.
    let levels = count(vae, |level| {
        format!("decoder.up_blocks.{level}.resnets.0.conv1.weight")
    });
    let mut channels: Vec<usize> = (0..levels)
        .map(|level| {
            size(
                vae,
                &format!("decoder.up_blocks.{level}.resnets.0.conv1.weight"),
                0,
            )
        })
        .collect();
    channels.reverse();
    let layers = count(vae, |layer| {
        format!("decoder.up_blocks.0.resnets.{layer}.conv1.weight")
    });
    let mut config = Settings::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("_class_name", json!("AutoencoderKL"));
    set("in_channels", json!(3));
    set("out_channels", json!(size(vae, "decoder.conv_out.weight", 0)));
    set("latent_channels", json!(size(vae, "decoder.conv_in.weight", 1)));
    set("layers_per_block", json!(layers.saturating_sub(1)));
    set("norm_num_groups", json!(groups(&channels)));
    set("down_block_types", json!(vec!["DownEncoderBlock2D"; levels]));
    set("up_block_types", json!(vec!["UpDecoderBlock2D"; levels]));
    set("block_out_channels", json!(channels));
    let has = |name: &str| json!(vae.header(name).is_some());
    set("use_quant_conv", has("quant_conv.weight"));
    set("use_post_quant_conv", has("post_quant_conv.weight"));
    set(
        "mid_block_add_attention",
        has("decoder.mid_block.attentions.0.to_q.weight"),
    );
    config
}

/// Sets the scale of the latents, which the autoencoder does not show: the autoencoders of Stable Diffusion 1
/// and of SDXL have the same shapes.
pub(in super::super) fn set_scale(config: &mut Settings, denoiser: NetworkKind) {
    let (scale, shift) = match denoiser {
        NetworkKind::Mmdit => (1.5305, Some(0.0609)),
        NetworkKind::UNet(ModelFamily::StableDiffusionXl | ModelFamily::StableDiffusionXlRefiner) => {
            (0.130_25, None)
        }
        _ => (0.182_15, None),
    };
    config.insert("scaling_factor".to_owned(), json!(scale));
    config.insert("shift_factor".to_owned(), json!(shift));
}
