//! Stable Diffusion 3.5: a transformer with three text encoders, and its ControlNets.

use serde_json::json;

use super::{Architecture, diffuser, text, text_encoder, tokenizer};
use crate::networks::sd3::{Sd3, Sd3Control};
use crate::networks::text::{Clip, T5};
use crate::networks::vae::Vae;

/// Tokens that the real T5 tokenizer allows.
const T5_LIMIT: usize = 512;

pub(super) fn model(transformer: &Sd3) -> Architecture {
    let clip_large = Clip {
        projects: true,
        ..Clip::LARGE
    };
    let mut texts = vec![
        text("transformer/config.json", &transformer.config()),
        text("text_encoder/config.json", &clip_large.config()),
        text("text_encoder_2/config.json", &Clip::BIG.config()),
        text("text_encoder_3/config.json", &T5::XXL.config()),
        text("vae/config.json", &Vae::SD3.config()),
        text(
            "scheduler/scheduler_config.json",
            &json!({
                "_class_name": "FlowMatchEulerDiscreteScheduler",
                "num_train_timesteps": 1000,
                "shift": 3.0,
            }),
        ),
    ];
    texts.extend(tokenizer("tokenizer", "tokenizer", Clip::POSITIONS));
    texts.extend(tokenizer("tokenizer_2", "tokenizer_2", Clip::POSITIONS));
    texts.extend(tokenizer("tokenizer_3", "tokenizer_3", T5_LIMIT));
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
    Architecture {
        components: vec![
            text_encoder("text_encoder", clip_large.tensors()),
            text_encoder("text_encoder_2", Clip::BIG.tensors()),
            text_encoder("text_encoder_3", T5::XXL.tensors()),
            diffuser("transformer", transformer.tensors()),
            diffuser("vae", Vae::SD3.tensors()),
        ],
        texts,
        index: Some(format!("{index:#}\n")),
    }
}

pub(super) fn controlnet(control: &Sd3Control) -> Architecture {
    Architecture {
        components: vec![diffuser("", control.tensors())],
        texts: vec![text("config.json", &control.config())],
        index: None,
    }
}
