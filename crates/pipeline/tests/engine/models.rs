//! The models of these tests: the fixtures, and one with a transformer that is much larger than its other
//! components.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_pipeline::ModelChoice;
use serde_json::{Value, json};

use crate::reference::{copy_folder, fixtures, model_in};
use networks::Values;
use networks::sd3::Sd3;

// The networks that full-size models are synthesized from.
#[allow(dead_code)] // Other tests use the rest.
#[path = "../../../models/examples/synthesize/networks/mod.rs"]
mod networks;

/// One model of each kind of denoising network.
pub(crate) const ALL: [&str; 3] = ["families/sd15", "families/sdxl", "models/tiny-large"];

/// Blocks of the large transformer.
pub(crate) const LAYERS: usize = 6;
const HEADS: usize = 5;

/// A copy of the model of the fixtures at `path` in `folder`.
pub(crate) fn copy_of(path: &str, folder: &Path) -> ModelChoice {
    copy_folder(&fixtures().join(path), folder);
    model_in(folder, path)
}

/// A model in `folder` with a transformer of random weights, in [`LAYERS`] blocks of 10 MB.
pub(crate) fn with_large_transformer(folder: &Path) -> ModelChoice {
    let model = copy_of("models/tiny-large", folder);
    let folder = folder.join("transformer");
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let shape = Sd3 {
        layers: LAYERS,
        heads: HEADS,
        table_side: size("pos_embed_max_size"),
        dual_attention_layers: 0,
        context: size("joint_attention_dim"),
        pooled: size("pooled_projection_dim"),
    };
    config["num_layers"] = json!(shape.layers);
    config["num_attention_heads"] = json!(shape.heads);
    config["attention_head_dim"] = json!(Sd3::HEAD);
    config["caption_projection_dim"] = json!(shape.width());
    for entry in fs::read_dir(&folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    save(
        &folder.join("diffusion_pytorch_model.safetensors"),
        &shape.tensors(),
    );
    model
}

/// Bytes of the weights of the VAE decoder of `model`.
pub(crate) fn decoder_bytes(model: &ModelChoice) -> u64 {
    let checkpoint = model.files.open().unwrap().checkpoint("vae").unwrap();
    let is_decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    let tensors = checkpoint.tensors().filter(|(name, _)| is_decoder(name));
    tensors.map(|(_, header)| header.bytes).sum()
}

/// Bytes of the weights that the text encoders of `model` hold while they encode: without their tables, of which rows are
/// read, and without the layers that give nothing.
pub(crate) fn encoder_bytes(model: &ModelChoice) -> u64 {
    /// SDXL takes its context from before the last layer, and only the second encoder's pooled vectors.
    const UNUSED: &str = "encoder.layers.1.";
    let source = model.files.open().unwrap();
    let is_sdxl = model.name.contains("sdxl");
    let encoders = ["text_encoder", "text_encoder_2", "text_encoder_3"];
    let encoders = encoders.iter().filter(|encoder| source.has_config(encoder));
    encoders
        .map(|encoder| {
            let checkpoint = source.checkpoint(encoder).unwrap();
            let is_held = |name: &str| {
                let is_table = [
                    "embedding.weight",
                    "shared.weight",
                    "embed_tokens.weight",
                    "position_ids",
                ];
                let is_unused = is_sdxl && *encoder == "text_encoder" && name.contains(UNUSED);
                !is_unused && !is_table.iter().any(|table| name.ends_with(table))
            };
            let tensors = checkpoint.tensors().filter(|(name, _)| is_held(name));
            tensors.map(|(_, header)| header.bytes).sum::<u64>()
        })
        .sum()
}

/// Writes f32 tensors of these shapes with pseudo-random values.
fn save(path: &Path, tensors: &[networks::Tensor]) {
    let mut state = 1_u32;
    let mut next = |values: Values| match values {
        Values::Ones => 1.0_f32,
        Values::Around(deviation) => {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 * 3.4 * deviation
        }
    };
    let bytes = tensors.iter().map(|tensor| {
        (0..tensor.count())
            .flat_map(|_| next(tensor.values).to_le_bytes())
            .collect()
    });
    let bytes: Vec<Vec<u8>> = bytes.collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
        (tensor.name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}
