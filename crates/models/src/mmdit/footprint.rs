//! The bytes of the transformer: of its weights, of what it is conditioned on, and of a pass through it.
//!
//! The counts follow `block.rs` line by line: what is dropped there is no longer counted here.

use sd_ops::Scratch;

use super::Transformer;
use super::modulation::parts_of;
use crate::feed_forward::FeedForward;
use crate::footprint::held_bytes;
use crate::{Footprint, WeightBytes};

/// What one forward pass is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Inputs that share the pass.
    pub inputs: usize,
    /// Texts of each, which is the batch of its latents.
    pub texts: usize,
    /// Tokens of a text.
    pub tokens: usize,
    /// Rows and columns of the latents.
    pub latents: (usize, usize),
}

impl Transformer {
    /// The weights of the denoising steps. Those of the modulations are not among them.
    pub fn weight_bytes(&self) -> WeightBytes {
        let blocks = self
            .scopes()
            .map(|scope| held_bytes(&scope, |name| !is_projection(name)));
        WeightBytes {
            blocks: blocks.collect(),
            always: held_bytes(&self.weights, |name| {
                name.starts_with("pos_embed.proj.") || name.starts_with("proj_out.")
            }),
        }
    }

    /// The weights that [`condition`](Self::condition) passes over.
    pub fn condition_weight_bytes(&self) -> WeightBytes {
        WeightBytes {
            blocks: self
                .scopes()
                .map(|scope| held_bytes(&scope, is_projection))
                .collect(),
            always: held_bytes(&self.weights, |name| {
                name.starts_with("time_text_embed.") || name.starts_with("context_embedder.")
            }),
        }
    }

    /// Bytes that the conditions of `steps` steps hold.
    pub fn condition_bytes(&self, load: Load, steps: usize) -> u64 {
        let parts: usize = (0..self.config.num_layers)
            .map(|layer| {
                let (image, text) = parts_of(layer, &self.config);
                image + text
            })
            .sum();
        let element = self.element();
        let width = self.config.width() as u64;
        let modulations = (steps * load.texts * (parts + 2)) as u64 * width * element;
        let text = (load.texts * load.tokens) as u64 * width * element;
        modulations + text + 4 * self.patches_of(load) * width
    }

    /// What computing the conditions takes beside them and the weights.
    pub fn condition_footprint(&self, load: Load, steps: usize) -> Footprint {
        let element = self.element();
        let rows = (steps * load.texts) as u64;
        let width = self.config.width() as u64;
        // The conditioning, its sum before silu, and what was added up to it.
        let conditioning = 4 * rows * width * element;
        let context = (load.texts * load.tokens * self.config.joint_attention_dim) as u64 * element;
        // Positions are read as they are stored and widened.
        let positions = 4 * self.patches_of(load) * width;
        Footprint {
            activations: conditioning + context.max(positions),
            scratch: Scratch::of_linear(self.config.width().max(self.config.joint_attention_dim)).bytes(),
        }
    }

    /// What a forward pass takes beside the weights and the conditions.
    pub fn forward_footprint(&self, load: Load) -> Footprint {
        let element = self.element();
        let (width, texts) = (self.config.width() as u64, load.texts as u64);
        let patches = self.patches_of(load);
        let image = texts * patches * width * element;
        let text = texts * load.tokens as u64 * width * element;
        let both = image + text;
        let streams = load.inputs as u64 * both;
        let on_processor = self.weights.holding().device.is_cpu();
        // Queries, keys, values, and the result. A GPU turns the keys around.
        let in_attention = if on_processor { 4 } else { 5 };
        let attention = in_attention * both;
        // The joint attention's result for the text stays until it has its turn; beside it what was normed, and
        // what comes out, chunk by chunk.
        let chunk = (FeedForward::chunk(on_processor) as u64).min(texts * patches);
        let inside = 2 * FeedForward::EXPANSION as u64 + 1;
        let feed_forward = text + 2 * image + chunk * inside * width * element;
        let second_attention = if self.config.dual_attention_layers.is_empty() {
            0
        } else {
            // That of the picture alone, with the joint one's result and the picture after it.
            text + (in_attention + 1) * image
        };
        // The modulation of one block.
        let modulation = 18 * texts * width * element;
        Footprint {
            activations: streams + attention.max(feed_forward).max(second_attention) + modulation,
            scratch: Scratch::of_linear(FeedForward::EXPANSION * self.config.width())
                .or(Scratch::of_attention(self.config.attention_head_dim))
                .bytes(),
        }
    }

    fn element(&self) -> u64 {
        self.activation_type.size_in_bytes() as u64
    }

    fn patches_of(&self, load: Load) -> u64 {
        let (height, width) = load.latents;
        let side = self.config.patch_size;
        ((height / side) * (width / side)) as u64
    }

    fn scopes(&self) -> impl Iterator<Item = sd_weights::Weights> {
        let blocks = self.weights.scope("transformer_blocks");
        (0..self.config.num_layers).map(move |layer| blocks.scope(layer))
    }
}

/// Whether a block's tensor is one of the modulations'.
fn is_projection(name: &str) -> bool {
    name.starts_with("norm1.linear.") || name.starts_with("norm1_context.linear.")
}
