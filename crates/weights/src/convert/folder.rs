//! A folder in the layout of diffusers.

use std::fs;
use std::path::Path;

use serde_json::Map;

use super::input::Input;
use super::safetensors_file::write_file;
use super::{Conversion, ConversionReport, Progress, names, unwritable, whole};
use crate::{MODEL_INDEX, Result};

/// Writes the folder of `conversion`.
pub(super) fn write(
    input: &Input,
    conversion: &Conversion,
    report: &mut ConversionReport,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let path = conversion.to.as_path();
    let failed = unwritable(path);
    let temporary = whole::folder_for(path).map_err(&failed)?;
    let root = temporary.path();
    let mut text = |place: &Path, bytes: &[u8]| -> Result<()> {
        let folder = place.parent().unwrap_or(root);
        fs::create_dir_all(folder).map_err(&failed)?;
        report.bytes += bytes.len() as u64;
        whole::write(place, bytes).map_err(&failed)
    };
    for (component, bytes) in &input.texts {
        match *component {
            MODEL_INDEX => text(&root.join("model_index.json"), bytes)?,
            _ => text(&root.join(component).join("scheduler_config.json"), bytes)?,
        }
    }
    for network in &input.networks {
        text(&root.join(network.component).join("config.json"), &network.config)?;
        let tokenizer = network.component.replace("text_encoder", "tokenizer");
        for (name, bytes) in &network.tokenizer {
            text(&root.join(&tokenizer).join(name), bytes)?;
        }
    }
    for (index, network) in input.networks.iter().enumerate() {
        let name = match network.component.starts_with("text_encoder") {
            true => "model.safetensors",
            false => "diffusion_pytorch_model.safetensors",
        };
        let tensors = names::of_folder(input, index);
        let place = root.join(network.component).join(name);
        let mut format = Map::new();
        format.insert("format".to_owned(), "pt".into());
        report.bytes += write_file(
            &place,
            input,
            &tensors,
            conversion.encoding,
            format,
            report,
            progress,
        )?;
    }
    whole::keep_folder(temporary, path).map_err(&failed)
}
