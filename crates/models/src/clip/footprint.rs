//! The memory of the encoder: of its weights and of a forward pass. The counts follow `layer.rs`.

use sd_ops::Capabilities;

use super::TextEncoder;
use crate::footprint::{held_bytes, linear_scratch};
use crate::{Footprint, WeightBytes};

impl TextEncoder {
    /// The weights that an encoding reads. Of the token and position embeddings only the rows of a text are
    /// read.
    pub fn weight_bytes(&self) -> WeightBytes {
        let layers = self.model.scope("encoder.layers");
        let of_layers =
            (0..self.config.num_hidden_layers).map(|layer| held_bytes(&layers.scope(layer), |_| true));
        // After the layers, where they are wanted.
        let norm = held_bytes(&self.model.scope("final_layer_norm"), |_| true);
        let projection = held_bytes(&self.whole.scope("text_projection"), |_| true);
        WeightBytes {
            blocks: of_layers.chain([norm, projection]).collect(),
            always: 0,
        }
    }

    /// The memory of encoding `texts` texts of `tokens` tokens, beside the weights.
    pub fn footprint(&self, texts: usize, tokens: usize) -> Footprint {
        let weight_options = self.model.options();
        let capabilities = Capabilities::of(&weight_options.device);
        let element = weight_options.activation_type().size_in_bytes() as u64;
        let rows = (texts * tokens) as u64;
        let width = rows * self.config.hidden_size as u64 * element;
        let inner = rows * self.config.intermediate_size as u64 * element;
        let mask = (tokens * tokens) as u64 * element;
        // The added embeddings, and once more behind the rows of the table.
        let added = 2 * (self.added() * self.config.hidden_size) as u64 * element;
        // The kept result of an earlier layer, the input, its norm, queries, keys, values, and the result.
        let attention = (7 + u64::from(capabilities.copies_keys)) * width;
        // The kept result of an earlier layer, the input, the tokens after attention, their norm, and the hidden
        // features. Where the activation is not fused, the hidden features before it too.
        let before = if capabilities.fuses_epilogues { 0 } else { inner };
        let feed_forward = 4 * width + inner + before;
        Footprint {
            activations: attention.max(feed_forward) + 2 * mask + added,
            scratch: linear_scratch(&self.model, |name| name.starts_with("encoder."))
                .or(linear_scratch(&self.whole, |name| {
                    name.starts_with("text_projection.")
                }))
                .or(capabilities.attention_scratch(
                    self.config.hidden_size / self.config.num_attention_heads,
                    weight_options.activation_type(),
                ))
                .bytes(),
        }
    }
}
