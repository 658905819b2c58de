//! The scratch memory of CPU kernels.

use crate::cpu::convolution::upsampled;
use crate::cpu::{attention, convolution, projection};

/// Scratch bytes of CPU kernels, beside their inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scratch {
    /// Of each thread that takes part.
    pub per_thread: u64,
    /// Shared by all threads.
    pub shared: u64,
}

/// A thread's share of small allocations: names and shapes of tensors, task queues.
const SMALL: u64 = 1 << 19;

impl Scratch {
    /// The scratch of two operations of which one runs at a time.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            per_thread: self.per_thread.max(other.per_thread),
            shared: self.shared.max(other.shared),
        }
    }

    /// The total with the current number of threads.
    pub fn bytes(self) -> u64 {
        self.per_thread * rayon::current_num_threads() as u64 + self.shared
    }

    fn floats(per_thread: usize, shared: usize) -> Self {
        Self {
            per_thread: 4 * per_thread as u64 + SMALL,
            shared: 4 * shared as u64,
        }
    }

    /// An upper bound for a convolution with a `kernel` x `kernel` kernel, banded or not.
    pub fn of_conv2d(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self::floats(convolution::task(in_channels, out_channels, kernel * kernel), 0)
    }

    /// A banded convolution after upsampling.
    pub fn of_upsampled_conv2d(in_channels: usize, out_channels: usize) -> Self {
        Self::floats(
            upsampled::task(in_channels, out_channels),
            upsampled::weights(in_channels, out_channels),
        )
    }

    /// A linear projection.
    pub fn of_linear() -> Self {
        Self::floats(projection::scratch(), 0)
    }

    /// Attention with heads of `size` features.
    pub fn of_attention(size: usize) -> Self {
        Self::floats(attention::scratch(size, size), 0)
    }
}
