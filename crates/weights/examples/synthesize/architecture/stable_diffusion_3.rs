//! Stable Diffusion 3.5: a transformer with three text encoders, and its ControlNets.

use serde_json::{Value, json};

use super::{Architecture, clip_config, diffuser, text, text_encoder, tokenizer, vae_config};
use crate::networks::sd3::{Sd3, Sd3Control};
use crate::networks::{Clip, T5, Vae};

/// Tokens that the real T5 tokenizer allows.
const T5_LIMIT: usize = 512;

pub(super) fn model(transformer: &Sd3) -> Architecture {
    let clip_large = Clip {
        projects: true,
        ..Clip::LARGE
    };
    let vae = Vae {
        latent_channels: Sd3::CHANNELS,
        quant_convolutions: false,
    };
    let mut texts = vec![
        text("transformer/config.json", &transformer_config(transformer)),
        text("text_encoder/config.json", &clip_config(&clip_large)),
        text("text_encoder_2/config.json", &clip_config(&Clip::BIG)),
        text("text_encoder_3/config.json", &t5_config()),
        text("vae/config.json", &vae_config(&vae, 1.5305, Some(0.0609))),
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
            diffuser("vae", vae.tensors()),
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
