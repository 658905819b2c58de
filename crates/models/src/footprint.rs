//! The bytes of a network: of its weights, by what becomes of them, and of a pass through it.

use sd_weights::Weights;

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

/// Bytes of a network's weights, by what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of every block of the list that can be streamed, in order.
    pub blocks: Vec<u64>,
    /// Of what stays from the first use to the end.
    pub always: u64,
}

/// Bytes that the tensors of `weights` whose names are `wanted` take once they are read.
pub(crate) fn held_bytes(weights: &Weights, wanted: impl Fn(&str) -> bool) -> u64 {
    let on_processor = weights.holding().device.is_cpu();
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
