//! What a pass through a network takes beside its weights.

use std::ops::Add;

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

    /// Enough for either of two passes that follow each other.
    pub fn or(self, other: Self) -> Self {
        Self {
            activations: self.activations.max(other.activations),
            scratch: self.scratch.max(other.scratch),
        }
    }
}

impl Add for Footprint {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            activations: self.activations + other.activations,
            scratch: self.scratch + other.scratch,
        }
    }
}
