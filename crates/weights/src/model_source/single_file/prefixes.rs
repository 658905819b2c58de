//! The prefixes under which a single file keeps the tensors of each network.

use super::super::NetworkKind;

/// A prefix, and what it says of the network below it.
#[derive(Debug)]
pub(super) struct TensorPrefix {
    /// The prefix, with its dot.
    pub(super) prefix: &'static str,
    /// The text encoder that is there, where its tensors alone might be those of another.
    pub(super) encoder: Option<NetworkKind>,
}

/// A prefix that says nothing of a text encoder.
const fn prefix(prefix: &'static str) -> TensorPrefix {
    TensorPrefix {
        prefix,
        encoder: None,
    }
}

const fn encoder(prefix: &'static str, kind: NetworkKind) -> TensorPrefix {
    TensorPrefix {
        prefix,
        encoder: Some(kind),
    }
}

/// The prefixes, in the order in which they are tried: as the original programs, stable-diffusion.cpp and
/// ComfyUI write them.
pub(super) const TENSOR_PREFIXES: &[TensorPrefix] = &[
    prefix("model.diffusion_model."),
    prefix("first_stage_model."),
    prefix("vae."),
    encoder("cond_stage_model.transformer.", NetworkKind::ClipL),
    encoder("cond_stage_model.1.transformer.", NetworkKind::ClipG),
    encoder("cond_stage_model.model.", NetworkKind::ClipH),
    encoder("conditioner.embedders.0.transformer.", NetworkKind::ClipL),
    // Also OpenCLIP-H, of Stable Diffusion 2 in a later program; the family tells.
    encoder("conditioner.embedders.0.model.", NetworkKind::ClipG),
    encoder("conditioner.embedders.1.model.", NetworkKind::ClipG),
    encoder("text_encoders.clip_l.transformer.", NetworkKind::ClipL),
    encoder("text_encoders.clip_g.transformer.", NetworkKind::ClipG),
    encoder("text_encoders.t5xxl.transformer.", NetworkKind::T5),
];

/// The prefixes of a network that is alone in its file, or beside tensors below [`TENSOR_PREFIXES`]. The first
/// is that of a file with the bare names.
pub(super) const ALONE: [&str; 4] = ["", "diffusion_model.", "unet.", "transformer."];

/// Whether `name` is the name of a tensor that training left behind, or that repeats another: no network
/// reads it.
pub(super) fn is_left_over(name: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "alphas_cumprod",
        "betas",
        "denoiser.sigmas",
        "embedding_manager",
        "global_step",
        "log_one_minus",
        "model_ema.",
        "posterior_",
        "sqrt_",
        "scaled_fp8",
        "text_encoders.t5xxl.transformer.encoder.embed_tokens.",
    ];
    const ENDINGS: [&str; 6] = [
        ".causal_mask",
        ".comfy_attention.config",
        ".logit_scale",
        ".position_ids",
        ".spiece_model",
        ".scaled_fp8",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
}
