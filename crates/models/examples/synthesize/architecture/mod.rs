//! The networks of each model, and the text files beside them.

use serde_json::{Value, json};

use crate::networks::Tensor;
use crate::networks::sd3::{Sd3, Sd3Control};
use crate::networks::unet::UNet;

mod latent_diffusion;
mod stable_diffusion_3;

/// The names of the models that can be made.
pub(crate) const ARCHITECTURES: [&str; 8] = [
    "sd3.5-large",
    "sd3.5-medium",
    "sd1.5",
    "sd2.1",
    "sdxl",
    "sdxl-refiner",
    "controlnet-sd15",
    "controlnet-sd35",
];

/// A network's folder and tensors.
pub(crate) struct Component {
    /// Empty for a network that is all there is.
    pub(crate) folder: &'static str,
    /// `model` or `diffusion_pytorch_model`.
    pub(crate) file_stem: &'static str,
    pub(crate) tensors: Vec<Tensor>,
}

/// A whole model.
pub(crate) struct Architecture {
    pub(crate) components: Vec<Component>,
    /// Configurations and tokenizers: path and contents.
    pub(crate) texts: Vec<(String, String)>,
    /// `model_index.json`, unless this is a single network.
    pub(crate) index: Option<String>,
}

/// The demo model's tokenizers stand in for the real ones, whose vocabularies are larger.
macro_rules! tokenizer_file {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/", $path)),
        )
    };
}
const TOKENIZER_FILES: [(&str, &str); 11] = [
    tokenizer_file!("tokenizer/merges.txt"),
    tokenizer_file!("tokenizer/special_tokens_map.json"),
    tokenizer_file!("tokenizer/tokenizer_config.json"),
    tokenizer_file!("tokenizer/vocab.json"),
    tokenizer_file!("tokenizer_2/merges.txt"),
    tokenizer_file!("tokenizer_2/special_tokens_map.json"),
    tokenizer_file!("tokenizer_2/tokenizer_config.json"),
    tokenizer_file!("tokenizer_2/vocab.json"),
    tokenizer_file!("tokenizer_3/special_tokens_map.json"),
    tokenizer_file!("tokenizer_3/tokenizer.json"),
    tokenizer_file!("tokenizer_3/tokenizer_config.json"),
];

/// The model called `name`.
pub(crate) fn named(name: &str) -> Option<Architecture> {
    match name {
        "sd3.5-large" => Some(stable_diffusion_3::model(&Sd3 {
            layers: 38,
            heads: 38,
            table_side: 192,
            dual_attention_layers: 0,
            context: Sd3::CONTEXT,
            pooled: Sd3::POOLED,
        })),
        "sd3.5-medium" => Some(stable_diffusion_3::model(&Sd3 {
            layers: 24,
            heads: 24,
            table_side: 384,
            dual_attention_layers: 13,
            context: Sd3::CONTEXT,
            pooled: Sd3::POOLED,
        })),
        "sd1.5" => Some(latent_diffusion::stable_diffusion_1()),
        "sd2.1" => Some(latent_diffusion::stable_diffusion_2()),
        "sdxl" => Some(latent_diffusion::stable_diffusion_xl()),
        "sdxl-refiner" => Some(latent_diffusion::refiner()),
        "controlnet-sd15" => Some(latent_diffusion::controlnet(&UNet::SD15)),
        "controlnet-sd35" => Some(stable_diffusion_3::controlnet(&Sd3Control::LARGE)),
        _ => None,
    }
}

/// A network whose weights transformers saves.
fn text_encoder(folder: &'static str, tensors: Vec<Tensor>) -> Component {
    Component {
        folder,
        file_stem: "model",
        tensors,
    }
}

/// A network whose weights diffusers saves.
fn diffuser(folder: &'static str, tensors: Vec<Tensor>) -> Component {
    Component {
        folder,
        file_stem: "diffusion_pytorch_model",
        tensors,
    }
}

fn text(path: &str, value: &Value) -> (String, String) {
    (path.to_owned(), format!("{value:#}\n"))
}

/// The files of the demo model's tokenizer `from`, in the folder `to`, with the length that the real encoders
/// read.
fn tokenizer(from: &str, to: &str, limit: usize) -> Vec<(String, String)> {
    let files = TOKENIZER_FILES.iter();
    let own =
        files.filter_map(|(path, contents)| Some((path.strip_prefix(from)?.strip_prefix('/')?, contents)));
    own.map(|(file, contents)| {
        let path = format!("{to}/{file}");
        match serde_json::from_str::<Value>(contents) {
            Ok(mut value) if file == "tokenizer_config.json" => {
                value["model_max_length"] = json!(limit);
                text(&path, &value)
            }
            _ => (path, (*contents).to_owned()),
        }
    })
    .collect()
}
