//! The memory of the UNet: of its weights, its conditions, and a forward pass.
//!
//! The counts follow `block.rs` and the layers that it calls line by line: a tensor that is dropped there is
//! no longer counted here.

use candle_core::DType;
use sd_ops::{Capabilities, Scratch};
use sd_weights::Weights;

use super::block_layout::{BlockKind, BlockSpec};
use super::config::Config;
use super::{NETWORK, UNet, work};
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::footprint::{held_bytes, linear_scratch};
use crate::{Conditioned, Footprint, Load, WeightBytes, Work};

impl Conditioned for UNet {
    fn weight_bytes(&self) -> WeightBytes {
        let layout = self.layout.iter();
        WeightBytes {
            blocks: layout.map(|spec| block_bytes(spec, &self.weights)).collect(),
            always: 0,
        }
    }

    fn condition_weight_bytes(&self) -> WeightBytes {
        WeightBytes {
            blocks: Vec::new(),
            always: time_bytes(&self.weights),
        }
    }

    fn condition_bytes(&self, load: Load, steps: usize) -> u64 {
        condition_bytes(&self.config, load, steps, self.activation_type)
    }

    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint {
        condition_footprint(&self.config, load, steps, &self.weights)
    }

    fn condition_work(&self, load: Load, steps: usize) -> Work {
        work::condition(&self.config, load, steps)
    }
}

impl UNet {
    /// The memory of a forward pass beside the weights, the conditions, and the residuals of a ControlNet.
    pub fn forward_footprint(&self, load: Load) -> Footprint {
        self.simulate(load).0
    }

    /// Bytes of the tensors that are alive while each block runs. The lowest-resolution blocks hold most of
    /// the parameters, so [`WeightBytes::most_with`] of these is less than the sum of both maxima.
    pub fn block_activations(&self, load: Load) -> Vec<u64> {
        self.simulate(load).1
    }

    fn simulate(&self, load: Load) -> (Footprint, Vec<u64>) {
        let mut pass = SimulatedPass::new(load, self.config.in_channels, &self.weights);
        let mut of_blocks = Vec::with_capacity(self.layout.len());
        for spec in &self.layout {
            let mut activations = pass.pass(spec);
            if spec.is_skip {
                pass.push_skip();
                // Without a middle block a ControlNet adds to a feature map that is a skip connection too,
                // which must not change.
                if spec.ends_middle {
                    activations = activations.max(pass.add());
                }
            }
            of_blocks.push(activations);
        }
        (pass.footprint(), of_blocks)
    }
}

/// Bytes of a block's weights in memory. `weights` are those of the whole network.
pub(crate) fn block_bytes(spec: &BlockSpec, weights: &Weights) -> u64 {
    held_bytes(&spec.weights(weights), |name| match spec.kind {
        BlockKind::TransformerEntry { .. } => name.starts_with("norm.") || name.starts_with("proj_in."),
        BlockKind::TransformerExit { .. } => name.starts_with("proj_out."),
        BlockKind::Exit { .. } => name.starts_with("conv_norm_out.") || name.starts_with("conv_out."),
        _ => true,
    })
}

/// Bytes of the weights of the time embedding.
pub(crate) fn time_bytes(weights: &Weights) -> u64 {
    held_bytes(weights, |name| {
        name.starts_with("time_embedding.") || name.starts_with("add_embedding.")
    })
}

/// Bytes of the conditions of `steps` steps.
pub(crate) fn condition_bytes(config: &Config, load: Load, steps: usize, activation_type: DType) -> u64 {
    let element = activation_type.size_in_bytes();
    let levels = config.levels(NETWORK).unwrap_or_default();
    let context = levels.first().map_or(0, |level| level.context);
    let rows = steps * load.texts * config.time_features();
    ((rows + load.texts * load.tokens * context) * element) as u64
}

/// The memory that computing the conditions takes beside them and the weights.
pub(crate) fn condition_footprint(config: &Config, load: Load, steps: usize, weights: &Weights) -> Footprint {
    let element = weights.options().activation_type().size_in_bytes();
    let features = config.time_features();
    let added = config.added_embedding().map_or(0, |added| added.features);
    // Timesteps before and after each projection and each silu, the sums, and what is added.
    let rows = 4 * steps * features + 2 * steps * load.texts * features;
    let of_texts = load.texts * (3 * added + 4 * features);
    Footprint {
        activations: ((rows + of_texts) * element) as u64,
        scratch: linear_scratch(weights, |_| true).bytes(),
    }
}

/// A feature map of all texts.
#[derive(Debug, Clone, Copy)]
struct FeatureMap {
    channels: usize,
    height: usize,
    width: usize,
}

/// Simulates a forward pass by its shapes, and keeps the peak so far.
#[derive(Debug)]
pub(crate) struct SimulatedPass {
    load: Load,
    activation_type: DType,
    element: usize,
    /// The current feature map. Tokens inside a transformer have as many values.
    x: FeatureMap,
    /// Whether a skip connection shares its memory.
    is_shared: bool,
    /// Values of the feature map that is the residual of a transformer.
    carried: usize,
    skips: Vec<FeatureMap>,
    /// Values that are alive until the end of the pass.
    kept: usize,
    /// The most values that were alive at the same time.
    most: usize,
    /// The scratch of the operations, which threads keep from one to the next.
    scratch: Scratch,
    /// That of linear layers.
    of_linear: Scratch,
    capabilities: &'static Capabilities,
}

impl SimulatedPass {
    /// A pass of latents with `channels` channels.
    pub(crate) fn new(load: Load, channels: usize, weights: &Weights) -> Self {
        let (height, width) = load.latents;
        let weight_options = weights.options();
        Self {
            load,
            activation_type: weight_options.activation_type(),
            element: weight_options.activation_type().size_in_bytes(),
            x: FeatureMap {
                channels,
                height,
                width,
            },
            is_shared: true,
            carried: 0,
            skips: Vec::new(),
            kept: 0,
            most: 0,
            scratch: Scratch::default(),
            of_linear: linear_scratch(weights, |_| true),
            capabilities: Capabilities::of(&weight_options.device),
        }
    }

    pub(crate) fn footprint(&self) -> Footprint {
        Footprint {
            activations: (self.most * self.element) as u64,
            scratch: self.scratch.bytes(),
        }
    }

    /// Runs a block. Returns the bytes that are alive at its peak.
    pub(crate) fn pass(&mut self, spec: &BlockSpec) -> u64 {
        let before = self.state();
        let own = self.own();
        let moments = match spec.kind {
            BlockKind::Entry { inputs, outputs } => {
                self.x.channels = outputs;
                vec![self.convolution(own, inputs, outputs)]
            }
            BlockKind::Downsampler { channels } => {
                self.x.height = self.x.height.div_ceil(2);
                self.x.width = self.x.width.div_ceil(2);
                vec![self.convolution(own, channels, channels)]
            }
            BlockKind::Residual {
                inputs,
                skip,
                outputs,
            } => self.residual(own, inputs, skip, outputs),
            BlockKind::TransformerEntry { .. } => {
                self.carried = own;
                self.projection()
            }
            BlockKind::TransformerLayer { channels, heads, .. } => self.layer(channels, heads),
            BlockKind::TransformerExit { .. } => self.projection(),
            BlockKind::Upsampler { channels } => self.upsampled(own, channels),
            BlockKind::Exit { inputs, outputs } => {
                let normed = self.values(self.x);
                self.x.channels = outputs;
                vec![own + normed, self.convolution(normed, inputs, outputs)]
            }
        };
        self.is_shared = false;
        let most = self.reach(before, &moments);
        if matches!(spec.kind, BlockKind::TransformerExit { .. }) {
            self.carried = 0;
        }
        (most * self.element) as u64
    }

    /// Keeps the current feature map as a skip connection.
    pub(crate) fn push_skip(&mut self) {
        self.skips.push(self.x);
        self.is_shared = true;
    }

    /// Adds a feature map of the same size. Returns the bytes that are alive at the peak.
    pub(crate) fn add(&mut self) -> u64 {
        let before = self.state();
        let sum = self.own() + self.values(self.x);
        self.is_shared = false;
        let most = self.reach(before, &[sum]);
        (most * self.element) as u64
    }

    /// Keeps a scaled 1x1 convolution of the current feature map. Returns the bytes that are alive at the
    /// peak.
    pub(crate) fn keep(&mut self) -> u64 {
        let feature_map = self.values(self.x);
        self.run(Scratch::of_conv2d(self.x.channels, self.x.channels, 1));
        // Other inputs may have computed theirs.
        let others = (self.load.inputs - 1) * feature_map;
        let most = self.reach(self.state(), &[self.own() + 2 * feature_map + others]);
        self.kept += feature_map;
        (most * self.element) as u64
    }

    /// Bytes that all inputs have kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        (self.kept * self.load.inputs * self.element) as u64
    }

    /// A 3x3 convolution whose result is the current feature map, while `live` other values are alive.
    fn convolution(&mut self, live: usize, inputs: usize, outputs: usize) -> usize {
        self.run(Scratch::of_conv2d(inputs, outputs, 3));
        live + self.values(self.x)
    }

    fn residual(&mut self, own: usize, inputs: usize, skip: usize, outputs: usize) -> Vec<usize> {
        let (mut joining, mut input) = (0, own);
        self.x.channels = inputs;
        let normed = self.values(self.x);
        if skip > 0 {
            let skips = self.skips.pop().map_or(0, |feature_map| self.values(feature_map));
            input = normed;
            joining = own + skips + input;
        }
        self.x.channels = outputs;
        let result = self.values(self.x);
        // The projected time embedding, before and after broadcasting.
        let time = 2 * self.load.texts * outputs;
        let first = self.convolution(input + normed, inputs, outputs);
        let mut second = self.convolution(input + time + result, outputs, outputs);
        if inputs != outputs {
            // The shortcut and the result, then their sum; the input is dropped before.
            second = second.max(3 * result);
        }
        vec![joining, first, second]
    }

    /// The norm and its tokens, or tokens and their projection; the residual is counted apart.
    fn projection(&mut self) -> Vec<usize> {
        self.run(self.of_linear);
        vec![2 * self.values(self.x)]
    }

    fn layer(&mut self, channels: usize, heads: usize) -> Vec<usize> {
        let tokens = self.values(self.x);
        let text = self.load.texts * self.load.tokens * channels;
        self.run(self.of_linear);
        let head = channels / heads;
        self.run(self.capabilities.attention_scratch(head, self.activation_type));
        // The tokens, queries, keys, values, and the result.
        let copies = usize::from(self.capabilities.copies_keys);
        // Where heads are padded, all but the tokens once more.
        let stored =
            |values: usize| values / head * self.capabilities.stored_head(head, self.activation_type);
        let self_attention = (5 + copies) * tokens + stored(4 * tokens);
        let cross_attention = 3 * tokens + (2 + copies) * text + stored(2 * tokens + 2 * text);
        // The tokens, their norm and the result, and the hidden features.
        let count = (self.load.texts, self.x.height * self.x.width);
        let hidden = FeedForward::workspace(HiddenActivation::Geglu, count, channels, self.capabilities);
        let feed_forward = 3 * tokens + hidden;
        vec![self_attention, cross_attention, feed_forward]
    }

    fn upsampled(&mut self, own: usize, channels: usize) -> Vec<usize> {
        let smaller = self.x;
        self.x.height *= 2;
        self.x.width *= 2;
        let twice = self.x;
        if let Some(next) = self.skips.last() {
            (self.x.height, self.x.width) = (next.height, next.width);
        }
        let is_twice = (self.x.height, self.x.width) == (twice.height, twice.width);
        if self.capabilities.fuses_upsampling && is_twice {
            // The upsampled feature map is never made. The smaller one is copied between two more rows.
            let height = smaller.height + 2;
            let between = self.values(FeatureMap { height, ..smaller });
            let scratch = self.capabilities.upsampled_conv2d_scratch(channels, channels);
            self.run(Scratch { shared: 0, ..scratch });
            return vec![own + between + scratch.shared as usize / self.element + self.values(self.x)];
        }
        let twice = self.values(twice);
        vec![own + twice, self.convolution(twice, channels, channels)]
    }

    /// Records `moments` at which an input has the given values alive, skip connections not counted. Other
    /// inputs have their state before or after the block.
    fn reach(&mut self, before: usize, moments: &[usize]) -> usize {
        let others = (self.load.inputs - 1) * before.max(self.state());
        let skips: usize = self
            .skips
            .iter()
            .map(|&feature_map| self.values(feature_map))
            .sum();
        let beside = others + skips + self.carried + self.kept * self.load.inputs;
        let most = beside + moments.iter().max().copied().unwrap_or(0);
        self.most = self.most.max(most);
        most
    }

    /// Records the scratch of an operation.
    fn run(&mut self, scratch: Scratch) {
        self.scratch = self.scratch.or(scratch);
    }

    /// Values of an input that are alive between two blocks.
    fn state(&self) -> usize {
        let skips: usize = self
            .skips
            .iter()
            .map(|&feature_map| self.values(feature_map))
            .sum();
        skips + self.carried + self.own()
    }

    /// Values of the current feature map, unless a skip connection shares its memory.
    fn own(&self) -> usize {
        if self.is_shared { 0 } else { self.values(self.x) }
    }

    fn values(&self, feature_map: FeatureMap) -> usize {
        self.load.texts * feature_map.channels * feature_map.height * feature_map.width
    }
}
