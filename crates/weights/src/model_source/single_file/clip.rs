//! The kind and the configuration of a CLIP text encoder, from its tensors.

use serde_json::json;

use super::super::NetworkKind;
use super::Settings;
use super::dimensions::{count, size};
use crate::Checkpoint;

/// Features of an attention head, in all of CLIP's text encoders.
const HEAD: usize = 64;
/// The tensor that projects the pooled text.
const PROJECTION: &str = "text_projection.weight";
const TOKENS: &str = "text_model.embeddings.token_embedding.weight";

/// Which of CLIP's text encoders has these tensors.
pub(super) fn kind(clip: &Checkpoint) -> NetworkKind {
    match layers(clip) {
        31.. => NetworkKind::ClipG,
        23.. => NetworkKind::ClipH,
        _ => NetworkKind::ClipL,
    }
}

fn layers(clip: &Checkpoint) -> usize {
    count(clip, |layer| {
        format!("text_model.encoder.layers.{layer}.mlp.fc1.weight")
    })
}

/// The configuration of a text encoder with the names of transformers.
pub(super) fn config(clip: &Checkpoint, kind: NetworkKind) -> Settings {
    let width = size(clip, TOKENS, 1);
    let vocabulary = size(clip, TOKENS, 0);
    let layers = match kind {
        // Stable Diffusion 2 takes the last but one layer, and diffusers leaves out the last.
        NetworkKind::ClipH => layers(clip).saturating_sub(1),
        _ => layers(clip),
    };
    let activation = match kind {
        NetworkKind::ClipL => "quick_gelu",
        _ => "gelu",
    };
    let projection = size(clip, PROJECTION, 0);
    let mut config = Settings::new();
    let mut set = |name: &str, value| config.insert(name.to_owned(), value);
    set("model_type", json!("clip_text_model"));
    set("vocab_size", json!(vocabulary));
    set("hidden_size", json!(width));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!((width / HEAD).max(1)));
    set(
        "intermediate_size",
        json!(size(clip, "text_model.encoder.layers.0.mlp.fc1.weight", 0)),
    );
    set(
        "max_position_embeddings",
        json!(size(clip, "text_model.embeddings.position_embedding.weight", 0)),
    );
    set("hidden_act", json!(activation));
    set(
        "projection_dim",
        json!(if projection > 0 { projection } else { width }),
    );
    set("eos_token_id", json!(vocabulary.saturating_sub(1)));
    config
}

/// The tensors with a projection of the pooled text, which Stable Diffusion 3 reads. Files of CLIP-L without
/// one stand for the identity, as ComfyUI takes them.
pub(in super::super) fn with_projection(clip: Checkpoint) -> Checkpoint {
    if clip.header(PROJECTION).is_some() {
        return clip;
    }
    clip.with_identity(PROJECTION, TOKENS)
}
