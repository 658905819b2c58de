//! The bytes of the encoder: of its weights, and of a pass through it. The counts follow `attention.rs` and
//! `feed_forward.rs`.

use sd_ops::Scratch;

use super::TextEncoder;
use super::layer::Half;
use crate::footprint::held_bytes;
use crate::{Footprint, WeightBytes};

impl TextEncoder {
    /// The weights that an encoding passes over. Of the table of words only the rows of a text are read.
    pub fn weight_bytes(&self) -> WeightBytes {
        let encoder = self.weights.scope("encoder");
        WeightBytes {
            blocks: Half::scopes(&encoder, self.config.num_layers)
                .map(|half| held_bytes(&half, |name| !name.contains("relative_attention_bias")))
                .collect(),
            always: 0,
        }
    }

    /// What encoding `texts` texts of `tokens` tokens takes beside the weights.
    pub fn footprint(&self, texts: usize, tokens: usize) -> Footprint {
        let weight_options = self.weights.options();
        let element = weight_options.activation_type().size_in_bytes() as u64;
        let rows = (texts * tokens) as u64;
        let width = rows * self.config.d_model as u64 * element;
        let heads = rows * (self.config.num_heads * self.config.d_kv) as u64 * element;
        let inner = rows * self.config.d_ff as u64 * element;
        let bias = (self.config.num_heads * tokens * tokens) as u64 * element;
        // What came in, its norm, queries, keys, values, and the result. A GPU turns the keys around.
        let attention = 2 * width + if weight_options.device.is_cpu() { 4 } else { 5 } * heads;
        // What came in, after attention too, its norm, the gates, and what they make of the rest. A GPU holds
        // that rest too.
        let rest = if weight_options.device.is_cpu() { 0 } else { inner };
        let feed_forward = 3 * width + 2 * inner + rest;
        Footprint {
            activations: attention.max(feed_forward) + bias,
            scratch: Scratch::of_linear()
                .or(Scratch::of_attention(self.config.d_kv))
                .bytes(),
        }
    }
}
