//! The configuration of a T5 encoder, from its tensors.

use serde_json::json;

use super::Settings;
use super::dimensions::{count, size};
use crate::Checkpoint;

/// The embeddings, which the encoder and the decoder of T5 share.
const SHARED: &str = "shared.weight";

/// The tensors, where the embeddings have their usual name.
pub(super) fn with_shared_embeddings(t5: Checkpoint) -> Checkpoint {
    if t5.header(SHARED).is_some() {
        return t5;
    }
    t5.renamed(|name| (name == "encoder.embed_tokens.weight").then(|| SHARED.to_owned()))
}

/// The configuration of an encoder with the names of transformers.
pub(super) fn config(t5: &Checkpoint) -> Settings {
    let attention = "encoder.block.0.layer.0.SelfAttention";
    let bias = format!("{attention}.relative_attention_bias.weight");
    let heads = size(t5, &bias, 1);
    let width = size(t5, SHARED, 1);
    let inner = size(t5, &format!("{attention}.q.weight"), 0);
    let is_gated = t5
        .header("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")
        .is_some();
    let mut config = Settings::new();
    let mut set = |name: &str, value| config.insert(name.to_owned(), value);
    set("model_type", json!("t5"));
    set("vocab_size", json!(size(t5, SHARED, 0)));
    set("d_model", json!(width));
    set("d_kv", json!(inner / heads.max(1)));
    set(
        "d_ff",
        json!(size(t5, "encoder.block.0.layer.1.DenseReluDense.wo.weight", 1)),
    );
    set(
        "num_layers",
        json!(count(t5, |block| format!(
            "encoder.block.{block}.layer.0.SelfAttention.q.weight"
        ))),
    );
    set("num_heads", json!(heads));
    set("relative_attention_num_buckets", json!(size(t5, &bias, 0)));
    set(
        "feed_forward_proj",
        json!(if is_gated { "gated-gelu" } else { "relu" }),
    );
    config
}
