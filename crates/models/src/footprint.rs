//! The memory footprint of a network: of its weights, by their residency, and of a forward pass.

use candle_core::DType;
use sd_ops::Scratch;
use sd_weights::{Residency, Weights};

use crate::Work;

/// Peak bytes of a forward pass, beside the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Footprint {
    /// Peak bytes of tensors: inputs, outputs and intermediate results that are alive at the same time.
    pub activations: u64,
    /// Scratch bytes of the operations, over all threads.
    pub scratch: u64,
}

impl Footprint {
    /// The total.
    pub fn bytes(self) -> u64 {
        self.activations + self.scratch
    }
}

/// The shapes of one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Inputs of the pass.
    pub inputs: usize,
    /// Texts of each input: the batch size of its latents.
    pub texts: usize,
    /// Tokens of a text.
    pub tokens: usize,
    /// Rows and columns of the latents.
    pub latents: (usize, usize),
}

/// Bytes of a network's weights, by their residency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of each block that can be streamed, in order.
    pub blocks: Vec<u64>,
    /// Of weights that are always resident.
    pub always: u64,
}

impl WeightBytes {
    /// The peak of blocks and activations together, where `activations` are the bytes that are alive while
    /// each block runs. Beside the resident blocks, memory holds the current block and the streamed block
    /// that is read ahead.
    pub fn most_with(&self, activations: &[u64], residency: Residency) -> u64 {
        let length = self.blocks.len();
        let keeps = |index: usize| residency.keeps(index, length);
        let streamed = |index: usize| if keeps(index) { 0 } else { self.blocks[index] };
        let kept: u64 = (0..length)
            .map(|index| self.blocks[index] - streamed(index))
            .sum();
        let at = |(index, activations): (usize, &u64)| {
            let after = (1..length).map(|distance| (index + distance) % length);
            let ahead = after.map(streamed).find(|&bytes| bytes > 0);
            streamed(index) + ahead.unwrap_or(0) + activations
        };
        let most = activations.iter().take(length).enumerate().map(at).max();
        self.always + kept + most.unwrap_or(0)
    }
}

/// A network that runs many times with conditions that are computed once.
pub trait Conditioned {
    /// The weights of the denoising steps, without those that only the conditions need.
    fn weight_bytes(&self) -> WeightBytes;

    /// The weights that computing the conditions needs.
    fn condition_weight_bytes(&self) -> WeightBytes;

    /// Bytes of the conditions of `steps` steps.
    fn condition_bytes(&self, load: Load, steps: usize) -> u64;

    /// The memory that computing the conditions takes, beside the conditions, the weights and, for a
    /// ControlNet, the control image.
    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint;

    /// The arithmetic of computing the conditions of `steps` steps.
    fn condition_work(&self, load: Load, steps: usize) -> Work;
}

/// The peak of a banded forward pass so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peak {
    /// Values of activations.
    pub(crate) activations: usize,
    /// Scratch floats that all threads share.
    pub(crate) shared: usize,
    /// Scratch bytes of each thread.
    pub(crate) per_thread: u64,
}

impl Peak {
    /// The peak in bytes, on a CPU with the current number of threads.
    pub(crate) fn footprint(self, activation_type: DType) -> Footprint {
        let threads = Scratch {
            per_thread: self.per_thread,
            shared: 4 * self.shared as u64,
        };
        Footprint {
            activations: (self.activations * activation_type.size_in_bytes()) as u64,
            scratch: threads.bytes(),
        }
    }

    /// Records a moment with the given values and shared scratch floats.
    pub(crate) fn reach(&mut self, activations: usize, shared: usize) {
        if activations + shared > self.activations + self.shared {
            (self.activations, self.shared) = (activations, shared);
        }
    }

    /// Records the scratch of an operation. Returns the floats that its threads share.
    pub(crate) fn run(&mut self, scratch: Scratch) -> usize {
        self.per_thread = self.per_thread.max(scratch.per_thread);
        scratch.shared as usize / 4
    }
}

/// The scratch of the linear layers of `weights` whose tensors have `wanted` names.
pub(crate) fn linear_scratch(weights: &Weights, wanted: impl Fn(&str) -> bool) -> Scratch {
    Scratch::of_linear().or(Scratch {
        per_thread: 0,
        shared: weights.decoded_bytes(wanted),
    })
}

/// Bytes in memory of the tensors of `weights` whose names are `wanted`.
pub(crate) fn held_bytes(weights: &Weights, wanted: impl Fn(&str) -> bool) -> u64 {
    let element = weights.options().activation_type().size_in_bytes();
    weights
        .held()
        .filter(|(name, ..)| wanted(name))
        .map(|(_, shape, bytes)| match shape {
            // Biases and norms are kept in the type of activations, beside what was read if that is narrower.
            &[features] if bytes < (features * element) as u64 => bytes + (features * element) as u64,
            _ => bytes,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use sd_ops::Capabilities;
    use sd_weights::{WeightOptions, WeightType};

    use super::*;

    #[test]
    fn weights_and_operations_agree_on_the_type_of_activations() {
        let capabilities = Capabilities::of(&Device::Cpu);
        for (weight_type, held_type) in [
            (WeightType::AsStored, DType::F16),
            (WeightType::Bf16, DType::BF16),
            (WeightType::F16, DType::F16),
            (WeightType::F32, DType::F32),
        ] {
            let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
            assert_eq!(options.activation_type(), capabilities.activation_type(held_type));
        }
    }

    #[test]
    fn large_blocks_and_large_activations_count_together_only_where_they_meet() {
        let weights = WeightBytes {
            blocks: vec![1, 2, 50, 60, 3, 4],
            always: 1000,
        };
        let activations = [200, 100, 10, 10, 100, 200];
        let most = |residency| weights.most_with(&activations, residency);
        assert_eq!(most(Residency::Resident), 1000 + 120 + 200);
        // The last block, and the first one of the next pass.
        assert_eq!(most(Residency::Streamed), 1000 + 4 + 1 + 200);
        // The third and the last block are resident: the first runs while the second is read.
        assert_eq!(most(Residency::Partly(2)), 1000 + 54 + 1 + 2 + 200);
        assert_eq!(weights.most_with(&[0; 6], Residency::Streamed), 1000 + 110);
    }
}
