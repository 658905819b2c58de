//! Which networks a model is made of, and the text files beside them.

use serde_json::{Value, json};

use crate::networks::{Clip, Sd3, T5, Tensor, Vae};

/// The names of the models that can be made.
pub(crate) const ARCHITECTURES: [&str; 2] = ["sd3.5-large", "sd3.5-medium"];

/// A network's folder and tensors.
pub(crate) struct Component {
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
    /// `model_index.json`
    pub(crate) index: String,
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
/// The end of a text in the demo model's CLIP tokenizers.
const CLIP_END: usize = 979;
/// Tokens that the real T5 tokenizer allows.
const T5_LIMIT: usize = 512;

/// The model called `name`.
pub(crate) fn named(name: &str) -> Option<Architecture> {
    match name {
        "sd3.5-large" => Some(sd3(&Sd3 {
            layers: 38,
            heads: 38,
            table_side: 192,
            dual_attention_layers: 0,
            context: Sd3::CONTEXT,
            pooled: Sd3::POOLED,
        })),
        "sd3.5-medium" => Some(sd3(&Sd3 {
            layers: 24,
            heads: 24,
            table_side: 384,
            dual_attention_layers: 13,
            context: Sd3::CONTEXT,
            pooled: Sd3::POOLED,
        })),
        _ => None,
    }
}

fn sd3(transformer: &Sd3) -> Architecture {
    let clip_large = Clip {
        width: 768,
        layers: 12,
    };
    let clip_big = Clip {
        width: 1280,
        layers: 32,
    };
    let vae = Vae {
        latent_channels: Sd3::CHANNELS,
        quant_convolutions: false,
    };
    let mut texts = vec![
        text("transformer/config.json", &transformer_config(transformer)),
        text(
            "text_encoder/config.json",
            &clip_config(&clip_large, 12, "quick_gelu"),
        ),
        text("text_encoder_2/config.json", &clip_config(&clip_big, 20, "gelu")),
        text("text_encoder_3/config.json", &t5_config()),
        text("vae/config.json", &vae_config(&vae)),
        text(
            "scheduler/scheduler_config.json",
            &json!({
                "_class_name": "FlowMatchEulerDiscreteScheduler",
                "num_train_timesteps": 1000,
                "shift": 3.0,
            }),
        ),
    ];
    texts.extend(
        TOKENIZER_FILES
            .iter()
            .map(|&(path, contents)| tokenizer_text(path, contents)),
    );
    let of = |library: &str, class: &str| json!([library, class]);
    let index = json!({
        "_class_name": "StableDiffusion3Pipeline",
        "scheduler": of("diffusers", "FlowMatchEulerDiscreteScheduler"),
        "text_encoder": of("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": of("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_3": of("transformers", "T5EncoderModel"),
        "tokenizer": of("transformers", "CLIPTokenizer"),
        "tokenizer_2": of("transformers", "CLIPTokenizer"),
        "tokenizer_3": of("transformers", "T5TokenizerFast"),
        "transformer": of("diffusers", "SD3Transformer2DModel"),
        "vae": of("diffusers", "AutoencoderKL"),
    });
    let component = |folder, file_stem, tensors| Component {
        folder,
        file_stem,
        tensors,
    };
    Architecture {
        components: vec![
            component("text_encoder", "model", clip_large.tensors()),
            component("text_encoder_2", "model", clip_big.tensors()),
            component("text_encoder_3", "model", T5::XXL.tensors()),
            component("transformer", "diffusion_pytorch_model", transformer.tensors()),
            component("vae", "diffusion_pytorch_model", vae.tensors()),
        ],
        texts,
        index: format!("{index:#}\n"),
    }
}

fn text(path: &str, value: &Value) -> (String, String) {
    (path.to_owned(), format!("{value:#}\n"))
}

/// A tokenizer's file, with the length that the real encoders read.
fn tokenizer_text(path: &str, contents: &str) -> (String, String) {
    let limit = if path.starts_with("tokenizer_3") {
        T5_LIMIT
    } else {
        Clip::POSITIONS
    };
    match serde_json::from_str::<Value>(contents) {
        Ok(mut value) if path.ends_with("tokenizer_config.json") => {
            value["model_max_length"] = json!(limit);
            text(path, &value)
        }
        _ => (path.to_owned(), contents.to_owned()),
    }
}

fn transformer_config(transformer: &Sd3) -> Value {
    json!({
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": Sd3::PATCH,
        "in_channels": Sd3::CHANNELS,
        "out_channels": Sd3::CHANNELS,
        "num_layers": transformer.layers,
        "attention_head_dim": Sd3::HEAD,
        "num_attention_heads": transformer.heads,
        "joint_attention_dim": transformer.context,
        "caption_projection_dim": transformer.width(),
        "pooled_projection_dim": transformer.pooled,
        "pos_embed_max_size": transformer.table_side,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0..transformer.dual_attention_layers).collect::<Vec<_>>(),
    })
}

fn clip_config(clip: &Clip, heads: usize, activation: &str) -> Value {
    json!({
        "architectures": ["CLIPTextModelWithProjection"],
        "vocab_size": Clip::VOCABULARY,
        "hidden_size": clip.width,
        "intermediate_size": 4 * clip.width,
        "num_hidden_layers": clip.layers,
        "num_attention_heads": heads,
        "max_position_embeddings": Clip::POSITIONS,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": clip.width,
        "eos_token_id": CLIP_END,
    })
}

fn t5_config() -> Value {
    let t5 = T5::XXL;
    json!({
        "architectures": ["T5EncoderModel"],
        "vocab_size": t5.vocabulary,
        "d_model": t5.width,
        "d_kv": t5.width / t5.heads,
        "d_ff": t5.inner,
        "num_layers": t5.layers,
        "num_heads": t5.heads,
        "relative_attention_num_buckets": T5::BUCKETS,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    })
}

fn vae_config(vae: &Vae) -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": vae.latent_channels,
        "block_out_channels": Vae::LEVELS,
        "layers_per_block": Vae::LAYERS,
        "norm_num_groups": 32,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "mid_block_add_attention": true,
        "use_quant_conv": vae.quant_convolutions,
        "use_post_quant_conv": vae.quant_convolutions,
    })
}
