//! A ControlNet for a UNet in a single file, as the original program and diffusers write it.

use serde_json::json;

use super::dimensions::{count, size};
use super::prefixes::is_left_over;
use super::{Settings, unet};
use crate::{Checkpoint, Naming, Result};

/// The prefix in the original program.
const PREFIX: &str = "control_model.";

/// The tensors under the names of diffusers and the configuration of the ControlNet in the file of `all`. None
/// if it holds none.
///
/// # Errors
/// A tensor has a wrong shape, or it is for a UNet that is not supported.
pub(in super::super) fn controlnet(all: &Checkpoint) -> Result<Option<(Checkpoint, Settings)>> {
    let bare = all.selected(|name| {
        let bare = name.strip_prefix(PREFIX).unwrap_or(name);
        (!is_left_over(bare)).then(|| bare.to_owned())
    });
    let checkpoint = bare.translated(Naming::CONTROLNET)?;
    let signs = [
        "controlnet_cond_embedding.conv_in.weight",
        "controlnet_mid_block.weight",
    ];
    if signs.iter().any(|name| checkpoint.header(name).is_none()) {
        return Ok(None);
    }
    let mut config = unet::config(&checkpoint, unet::family(&checkpoint)?);
    // It has no up path.
    config.remove("out_channels");
    let block = |index: usize| format!("controlnet_cond_embedding.blocks.{index}.weight");
    let first = size(&checkpoint, "controlnet_cond_embedding.conv_in.weight", 0);
    // Of two convolutions the second has the channels of the next level.
    let levels = (0..count(&checkpoint, block) / 2).map(|level| size(&checkpoint, &block(2 * level + 1), 0));
    let channels: Vec<usize> = std::iter::once(first).chain(levels).collect();
    let inputs = size(&checkpoint, "controlnet_cond_embedding.conv_in.weight", 1);
    config.insert("_class_name".to_owned(), json!("ControlNetModel"));
    config.insert("conditioning_channels".to_owned(), json!(inputs));
    config.insert("conditioning_embedding_out_channels".to_owned(), json!(channels));
    Ok(Some((checkpoint, config)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    /// A file of zeros with tensors of these shapes.
    fn file_of(tensors: &[(&str, &[usize])], folder: &tempfile::TempDir) -> Checkpoint {
        let (mut header, mut end) = (Settings::new(), 0);
        for (name, shape) in tensors {
            let next = end + 2 * shape.iter().product::<usize>();
            let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": [end, next]});
            header.insert((*name).to_owned(), entry);
            end = next;
        }
        let header = Value::Object(header).to_string();
        let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let path = folder.path().join("x.safetensors");
        fs::write(&path, &start).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len((start.len() + end) as u64).unwrap();
        Checkpoint::open_file(path).unwrap()
    }

    #[test]
    fn the_original_names_are_those_of_diffusers() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of(
            &[
                ("control_model.input_blocks.0.0.weight", &[320, 4, 3, 3]),
                (
                    "control_model.input_blocks.1.0.in_layers.2.weight",
                    &[320, 320, 3, 3],
                ),
                ("control_model.input_blocks.1.1.proj_in.weight", &[320, 320, 1, 1]),
                (
                    "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                    &[320, 768],
                ),
                (
                    "control_model.input_blocks.1.1.transformer_blocks.0.norm1.weight",
                    &[320],
                ),
                (
                    "control_model.middle_block.0.in_layers.2.weight",
                    &[320, 320, 3, 3],
                ),
                ("control_model.middle_block_out.0.weight", &[320, 320, 1, 1]),
                ("control_model.zero_convs.1.0.weight", &[320, 320, 1, 1]),
                ("control_model.input_hint_block.0.weight", &[16, 3, 3, 3]),
                ("control_model.input_hint_block.2.weight", &[16, 16, 3, 3]),
                ("control_model.input_hint_block.4.weight", &[32, 16, 3, 3]),
                ("control_model.input_hint_block.6.weight", &[32, 32, 3, 3]),
                ("control_model.input_hint_block.8.weight", &[96, 32, 3, 3]),
                ("control_model.input_hint_block.10.weight", &[96, 96, 3, 3]),
                ("control_model.input_hint_block.12.weight", &[256, 96, 3, 3]),
                ("control_model.input_hint_block.14.weight", &[320, 256, 3, 3]),
            ],
            &folder,
        );
        let (tensors, config) = controlnet(&file).unwrap().unwrap();
        for (name, rows) in [
            ("conv_in.weight", 320),
            (
                "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                320,
            ),
            ("controlnet_down_blocks.1.weight", 320),
            ("controlnet_cond_embedding.blocks.5.weight", 256),
            ("controlnet_cond_embedding.conv_out.weight", 320),
        ] {
            assert_eq!(size(&tensors, name, 0), rows, "{name}");
        }
        assert_eq!(
            config["conditioning_embedding_out_channels"],
            json!([16, 32, 96, 256])
        );
        assert_eq!(config["cross_attention_dim"], 768);
        assert_eq!(config["attention_head_dim"], 8);
        assert_eq!(config["block_out_channels"], json!([320]));
        assert_eq!(config["layers_per_block"], json!([1]));
        assert_eq!(config["_class_name"], "ControlNetModel");
    }

    #[test]
    fn another_file_is_no_controlnet() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_of(
            &[("model.diffusion_model.input_blocks.0.0.weight", &[320, 4, 3, 3])],
            &folder,
        );
        assert!(controlnet(&file).unwrap().is_none());
    }
}
