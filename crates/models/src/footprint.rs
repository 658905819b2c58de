//! The bytes of a network: of its weights, by what becomes of them, and of a pass through it.

use candle_core::DType;
use sd_ops::Scratch;
use sd_weights::{Residency, Weights};

/// Bytes that a pass through a network takes beside its weights, at its most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Footprint {
    /// Bytes of the tensors that live at the same time: what goes in, what comes out and what lies between.
    pub activations: u64,
    /// Bytes that operations take for themselves while they run, over all threads.
    pub scratch: u64,
}

impl Footprint {
    /// All of it.
    pub fn bytes(self) -> u64 {
        self.activations + self.scratch
    }
}

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

/// Bytes of a network's weights, by what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of every block of the list that can be streamed, in order.
    pub blocks: Vec<u64>,
    /// Of what stays from the first use to the end.
    pub always: u64,
}

impl WeightBytes {
    /// The most that blocks and activations take together, where `activations` are the bytes that live while
    /// each block is computed with. Beside the blocks that stay there are then the block itself and the
    /// streamed one that is read.
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

/// A network that is asked many times under conditions that are computed once, before it is asked.
pub trait Conditioned {
    /// The weights of the denoising steps. Those that only the conditions are computed with are not among
    /// them.
    fn weight_bytes(&self) -> WeightBytes;

    /// The weights that the conditions are computed with.
    fn condition_weight_bytes(&self) -> WeightBytes;

    /// Bytes that the conditions of `steps` steps hold.
    fn condition_bytes(&self, load: Load, steps: usize) -> u64;

    /// What computing the conditions takes beside them, the weights and, with a ControlNet, the picture as it
    /// comes in.
    fn condition_footprint(&self, load: Load, steps: usize) -> Footprint;
}

/// The most that a pass by bands takes at a time, as far as it has been followed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    /// Values of activations.
    pub(crate) activations: usize,
    /// 32-bit numbers that operations take for themselves.
    pub(crate) shared: usize,
    /// Bytes that each thread takes.
    pub(crate) a_thread: u64,
}

impl Taken {
    /// In bytes, on a processor with as many threads as there are now.
    pub(crate) fn footprint(self, activation_type: DType) -> Footprint {
        let threads = Scratch {
            a_thread: self.a_thread,
            shared: 4 * self.shared as u64,
        };
        Footprint {
            activations: (self.activations * activation_type.size_in_bytes()) as u64,
            scratch: threads.bytes(),
        }
    }

    /// At some point so many values are held, and so many floats taken.
    pub(crate) fn reach(&mut self, activations: usize, shared: usize) {
        if activations + shared > self.activations + self.shared {
            (self.activations, self.shared) = (activations, shared);
        }
    }

    /// An operation runs. The result is how many floats its threads share.
    pub(crate) fn run(&mut self, scratch: Scratch) -> usize {
        self.a_thread = self.a_thread.max(scratch.a_thread);
        scratch.shared as usize / 4
    }
}

/// Bytes that the tensors of `weights` whose names are `wanted` take once they are read.
pub(crate) fn held_bytes(weights: &Weights, wanted: impl Fn(&str) -> bool) -> u64 {
    let on_processor = weights.options().device.is_cpu();
    weights
        .held()
        .filter(|(name, ..)| wanted(name))
        .map(|(_, shape, bytes)| match shape {
            // A processor computes with biases and norms in 32 bits, and holds them so beside what was read.
            &[features] if on_processor && bytes < 4 * features as u64 => bytes + 4 * features as u64,
            _ => bytes,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_and_large_activations_count_together_only_where_they_meet() {
        let weights = WeightBytes {
            blocks: vec![1, 2, 50, 60, 3, 4],
            always: 1000,
        };
        let activations = [200, 100, 10, 10, 100, 200];
        let most = |residency| weights.most_with(&activations, residency);
        assert_eq!(most(Residency::Resident), 1000 + 120 + 200);
        // The last one, and the first one of the next pass.
        assert_eq!(most(Residency::Streamed), 1000 + 4 + 1 + 200);
        // Kept are the third and the last: the first is computed with while the second is read.
        assert_eq!(most(Residency::Partly(2)), 1000 + 54 + 1 + 2 + 200);
        assert_eq!(weights.most_with(&[0; 6], Residency::Streamed), 1000 + 110);
    }
}
