//! The memory of a ControlNet: of its weights, its conditions, a forward pass, and its residuals.

use sd_ops::Scratch;

use super::{ChannelOrder, ControlNet, Step};
use crate::footprint::held_bytes;
use crate::unet::block_layout::BlockKind;
use crate::unet::footprint::{self, SimulatedPass};
use crate::unet::work;
use crate::{Conditioned, Footprint, Load, WeightBytes, Work};

impl Conditioned for ControlNet {
    fn weight_bytes(&self) -> WeightBytes {
        let bytes = |step: &Step| match step {
            Step::Shared(spec) => footprint::block_bytes(spec, &self.weights),
            Step::Adds { .. } => held_bytes(&step.weights(&self.weights), |_| true),
        };
        WeightBytes {
            blocks: self.steps.iter().map(bytes).collect(),
            always: 0,
        }
    }

    fn condition_weight_bytes(&self) -> WeightBytes {
        let of_embedding = held_bytes(&self.weights, |name| {
            name.starts_with("controlnet_cond_embedding.")
        });
        WeightBytes {
            blocks: Vec::new(),
            always: footprint::time_bytes(&self.weights) + of_embedding,
        }
    }

    fn condition_bytes(&self, load: Load, steps: usize) -> u64 {
        let (height, width) = load.latents;
        let control_image = self.config.network.block_out_channels[0] * height * width * self.element();
        footprint::condition_bytes(&self.config.network, load, steps, self.activation_type)
            + control_image as u64
    }

    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint {
        let of_time = footprint::condition_footprint(&self.config.network, load, steps, &self.weights);
        let (height, width) = load.latents;
        let factor = self.config.downsampling();
        let mut pixels = factor * factor * height * width;
        let shown = match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => 0,
            ChannelOrder::Bgr => self.config.conditioning_channels * pixels,
        };
        let (mut before, mut most, mut scratch) = (shown, 0, Scratch::default());
        for [inputs, outputs, stride] in self.config.convolutions() {
            pixels /= stride * stride;
            // The feature map before and after the convolution, then after it and after silu.
            let after = outputs * pixels;
            most = most.max(before + after).max(2 * after);
            scratch = scratch.or(Scratch::of_conv2d(inputs, outputs, 3));
            before = after;
        }
        Footprint {
            activations: of_time.activations.max((most * self.element()) as u64),
            scratch: of_time.scratch.max(scratch.bytes()),
        }
    }

    fn condition_work(&self, load: Load, steps: usize) -> Work {
        work::condition(&self.config.network, load, steps).and(self.embedding_work(load.latents))
    }
}

impl ControlNet {
    /// The memory of a forward pass beside the weights and the conditions, residuals included.
    pub fn forward_footprint(&self, load: Load) -> Footprint {
        self.simulate(load).0.footprint()
    }

    /// Bytes of the tensors that are alive while each block runs, as [`WeightBytes::most_with`] takes them.
    pub fn block_activations(&self, load: Load) -> Vec<u64> {
        self.simulate(load).1
    }

    /// Bytes of the residuals of a forward pass, for all inputs. They are alive during the UNet's pass.
    pub fn residual_bytes(&self, load: Load) -> u64 {
        self.simulate(load).0.kept_bytes()
    }

    fn simulate(&self, load: Load) -> (SimulatedPass, Vec<u64>) {
        let mut pass = SimulatedPass::new(load, self.config.network.in_channels, &self.weights);
        let of_blocks = self.steps.iter().map(|step| match step {
            Step::Shared(spec) => {
                let activations = pass.pass(spec);
                match spec.kind {
                    BlockKind::Entry { .. } => activations.max(pass.add()),
                    _ => activations,
                }
            }
            Step::Adds { .. } => pass.keep(),
        });
        let of_blocks = of_blocks.collect();
        (pass, of_blocks)
    }

    fn element(&self) -> usize {
        self.activation_type.size_in_bytes()
    }
}
