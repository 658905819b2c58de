//! The memory of the encoder: of its weights and of a forward pass. The counts follow `attention.rs` and
//! `feed_forward.rs`.

use sd_ops::Capabilities;

use super::TextEncoder;
use super::layer::Half;
use crate::footprint::{held_bytes, linear_scratch};
use crate::{Footprint, WeightBytes};

/// What the names of the table of relative positions have.
const POSITIONS: &str = "relative_attention_bias";

impl TextEncoder {
    /// The weights that an encoding reads. Of the token embeddings only the rows of a text are read.
    pub fn weight_bytes(&self) -> WeightBytes {
        let encoder = self.weights.scope("encoder");
        let of_halves = Half::scopes(&encoder, self.config.num_layers)
            .map(|half| held_bytes(&half, |name| !name.contains(POSITIONS)));
        let around = held_bytes(&encoder, |name| {
            name.contains(POSITIONS) || name.starts_with("final_layer_norm.")
        });
        WeightBytes {
            blocks: of_halves.chain([around]).collect(),
            always: 0,
        }
    }

    /// The memory of encoding `texts` texts of `tokens` tokens, beside the weights.
    pub fn footprint(&self, texts: usize, tokens: usize) -> Footprint {
        let weight_options = self.weights.options();
        let capabilities = Capabilities::of(&weight_options.device);
        let element = weight_options.activation_type().size_in_bytes() as u64;
        let rows = (texts * tokens) as u64;
        let width = rows * self.config.d_model as u64 * element;
        let heads = rows * (self.config.num_heads * self.config.d_kv) as u64 * element;
        let inner = rows * self.config.d_ff as u64 * element;
        let bias = (self.config.num_heads * tokens * tokens) as u64 * element;
        // The input, its norm, queries, keys, values, and the result.
        let attention = 2 * width + (4 + u64::from(capabilities.copies_keys)) * heads;
        // The input, the tokens after attention, their norm, the gates, and the gated features. Where the gate
        // is not fused, the ungated features too.
        let ungated = if capabilities.fuses_epilogues { 0 } else { inner };
        let feed_forward = 3 * width + 2 * inner + ungated;
        Footprint {
            activations: attention.max(feed_forward) + bias,
            scratch: linear_scratch(&self.weights, |name| name.starts_with("encoder."))
                .or(capabilities.attention_scratch(self.config.d_kv, weight_options.activation_type()))
                .bytes(),
        }
    }
}
