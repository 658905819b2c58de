//! The memory of the transformer: of its weights, its conditions, and a forward pass.
//!
//! The counts follow `block.rs` line by line: a tensor that is dropped there is no longer counted here.

use candle_core::DType;
use sd_ops::Capabilities;
use sd_weights::Weights;

use super::block_kind::{BlockKind, ContextStream};
use super::control::ControlNet;
use super::{Config, Transformer, work};
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::footprint::{held_bytes, linear_scratch};
use crate::{Conditioned, Footprint, Load, WeightBytes, Work};

impl Conditioned for Transformer {
    fn weight_bytes(&self) -> WeightBytes {
        let blocks = block_scopes(&self.weights, self.kinds.len()).map(|scope| block_bytes(&scope));
        WeightBytes {
            blocks: blocks.collect(),
            always: held_bytes(&self.weights, |name| {
                name.starts_with("pos_embed.proj.") || name.starts_with("proj_out.")
            }),
        }
    }

    fn condition_weight_bytes(&self) -> WeightBytes {
        condition_weight_bytes(&self.weights, self.kinds.len())
    }

    fn condition_bytes(&self, load: Load, steps: usize) -> u64 {
        let bytes = self.bytes();
        let of_head = (2 * steps * load.texts) as u64 * bytes.token();
        bytes.conditioning(load, &self.kinds, steps) + of_head + bytes.positions(load)
    }

    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint {
        self.bytes().conditioning_footprint(load, steps)
    }

    fn condition_work(&self, load: Load, steps: usize) -> Work {
        work::condition(&self.config, &self.kinds, load, steps)
    }
}

impl Transformer {
    /// The memory of a forward pass beside the weights and the conditions, with `controls` running
    /// interleaved.
    pub fn forward_footprint(&self, load: Load, controls: &[&ControlNet]) -> Footprint {
        let bytes = self.bytes();
        let given: Vec<u64> = controls.iter().map(|_| bytes.added(load)).collect();
        let all_given: u64 = given.iter().sum();
        // One network runs at a time; the tokens of all networks are alive.
        let own = bytes.block(load, &self.kinds) + all_given;
        let of_control =
            |(control, given): (&&ControlNet, u64)| control.block_bytes(load) + all_given - given;
        let works = controls.iter().zip(given).map(of_control);
        let held = controls.iter().map(|control| control.stream_bytes(load));
        Footprint {
            activations: bytes.streams(load, &self.kinds) + held.sum::<u64>() + works.fold(own, u64::max),
            scratch: controls
                .iter()
                .map(|control| control.scratch())
                .fold(bytes.scratch(), u64::max),
        }
    }

    fn bytes(&self) -> Bytes<'_> {
        Bytes::new(&self.config, &self.weights, self.activation_type)
    }
}

/// Sizes in bytes of the tensors of a network.
#[derive(Debug)]
pub(super) struct Bytes<'a> {
    config: &'a Config,
    weights: &'a Weights,
    capabilities: &'static Capabilities,
    activation_type: DType,
    element: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(config: &'a Config, weights: &'a Weights, activation_type: DType) -> Self {
        Self {
            config,
            weights,
            capabilities: Capabilities::of(&weights.options().device),
            activation_type,
            element: activation_type.size_in_bytes() as u64,
        }
    }

    /// A token, or one vector of a modulation.
    pub(super) fn token(&self) -> u64 {
        self.config.width() as u64 * self.element
    }

    /// The image tokens of an input.
    pub(super) fn image(&self, load: Load) -> u64 {
        load.texts as u64 * self.patches(load) * self.token()
    }

    /// The text tokens of an input; 0 if the network reads no text.
    fn text(&self, load: Load, kinds: &[BlockKind]) -> u64 {
        if reads_text(kinds) {
            (load.texts * load.tokens) as u64 * self.token()
        } else {
            0
        }
    }

    /// Both streams of all inputs.
    pub(super) fn streams(&self, load: Load, kinds: &[BlockKind]) -> u64 {
        load.inputs as u64 * (self.image(load) + self.text(load, kinds))
    }

    /// The residuals that a ControlNet adds to all inputs.
    pub(super) fn added(&self, load: Load) -> u64 {
        load.inputs as u64 * self.image(load)
    }

    /// The position embedding.
    pub(super) fn positions(&self, load: Load) -> u64 {
        4 * self.patches(load) * self.config.width() as u64
    }

    /// The text tokens and the modulations of `steps` steps.
    pub(super) fn conditioning(&self, load: Load, kinds: &[BlockKind], steps: usize) -> u64 {
        let parts: usize = kinds
            .iter()
            .map(|kind| kind.image_parts() + kind.text_parts())
            .sum();
        (steps * load.texts * parts) as u64 * self.token() + self.text(load, kinds)
    }

    /// The memory that computing the conditions takes beside the conditions themselves.
    pub(super) fn conditioning_footprint(&self, load: Load, steps: usize) -> Footprint {
        // The embedding, its sum before silu, and the addends of that.
        let conditioning = 4 * (steps * load.texts) as u64 * self.token();
        let features = self.config.joint_attention_dim;
        let context = (load.texts * load.tokens * features) as u64 * self.element;
        Footprint {
            // The position table is read in its stored type, then widened.
            activations: conditioning + context.max(self.positions(load)),
            scratch: linear_scratch(self.weights, is_of_conditions).bytes(),
        }
    }

    /// The memory of a block beside the streams of all inputs.
    pub(super) fn block(&self, load: Load, kinds: &[BlockKind]) -> u64 {
        let (image, text) = (self.image(load), self.text(load, kinds));
        // Queries, keys, values, and the result.
        let in_attention = 4 + u64::from(self.capabilities.copies_keys);
        let attention = in_attention * (image + text);
        // The attention's result for the text is alive until the text's feed-forward layer; beside it the
        // normalised tokens and the result, chunk by chunk.
        let hidden = FeedForward::workspace(
            HiddenActivation::GeluTanh,
            (load.texts, self.patches(load) as usize),
            self.config.width(),
            self.capabilities,
        ) as u64;
        let feed_forward = text + 2 * image + hidden * self.element;
        let second_attention = if kinds.iter().any(|kind| kind.dual_attention) {
            // Self-attention of the image, with the joint attention's result and the image tokens after it.
            text + (in_attention + 1) * image
        } else {
            0
        };
        // The modulation of one block.
        let modulation = 18 * load.texts as u64 * self.token();
        attention.max(feed_forward).max(second_attention) + modulation
    }

    /// The scratch of the operations. Threads keep what computing the conditions took.
    pub(super) fn scratch(&self) -> u64 {
        linear_scratch(self.weights, |name| !is_of_conditions(name))
            .or(self
                .capabilities
                .attention_scratch(self.config.attention_head_dim, self.activation_type))
            .bytes()
    }

    fn patches(&self, load: Load) -> u64 {
        let (height, width) = load.latents;
        let side = self.config.patch_size;
        ((height / side) * (width / side)) as u64
    }
}

/// The weights that computing the conditions reads: the projections of all modulations, and the embedders
/// before them.
pub(super) fn condition_weight_bytes(weights: &Weights, layers: usize) -> WeightBytes {
    WeightBytes {
        blocks: block_scopes(weights, layers)
            .map(|scope| held_bytes(&scope, is_projection))
            .collect(),
        always: held_bytes(weights, is_of_embedders),
    }
}

/// Bytes of a block's weights without the projections of its modulations.
pub(super) fn block_bytes(scope: &Weights) -> u64 {
    held_bytes(scope, |name| !is_projection(name))
}

fn block_scopes(weights: &Weights, layers: usize) -> impl Iterator<Item = Weights> {
    let blocks = weights.scope("transformer_blocks");
    (0..layers).map(move |layer| blocks.scope(layer))
}

fn reads_text(kinds: &[BlockKind]) -> bool {
    kinds.iter().any(|kind| kind.context != ContextStream::None)
}

/// Whether a tensor of the network is read for the conditions alone.
fn is_of_conditions(name: &str) -> bool {
    let of_block = || {
        let (_, name) = name.strip_prefix("transformer_blocks.")?.split_once('.')?;
        Some(is_projection(name))
    };
    is_of_embedders(name) || of_block().unwrap_or(name.starts_with("norm_out."))
}

fn is_of_embedders(name: &str) -> bool {
    name.starts_with("time_text_embed.") || name.starts_with("context_embedder.")
}

/// Whether a block's tensor belongs to the projections of its modulations.
fn is_projection(name: &str) -> bool {
    name.starts_with("norm1.linear.") || name.starts_with("norm1_context.linear.")
}
