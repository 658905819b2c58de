//! What operations take for themselves on a processor while they run.

use crate::cpu::convolution::upsampled;
use crate::cpu::{attention, convolution, projection};

/// Bytes that operations take for themselves on a processor while they run, beside what goes in and what comes
/// out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scratch {
    /// Those of each thread that takes part.
    pub a_thread: u64,
    /// Those that all share.
    pub shared: u64,
}

/// Names and shapes of tensors, and queues of tasks, which are not counted one by one, as a share of each thread.
const SMALL: u64 = 1 << 19;

impl Scratch {
    /// Of operations of which one runs at a time.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            a_thread: self.a_thread.max(other.a_thread),
            shared: self.shared.max(other.shared),
        }
    }

    /// All of it, with the threads that there are.
    pub fn bytes(self) -> u64 {
        self.a_thread * rayon::current_num_threads() as u64 + self.shared
    }

    fn floats(a_thread: usize, shared: usize) -> Self {
        Self {
            a_thread: 4 * a_thread as u64 + SMALL,
            shared: 4 * shared as u64,
        }
    }

    /// Of a convolution by `kernel` x `kernel`, or of one of bands, at most: weights of 16 bits are widened.
    pub fn of_conv2d(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self::floats(convolution::task(in_channels, out_channels, kernel * kernel), 0)
    }

    /// Of a convolution of bands after upsampling.
    pub fn of_upsampled_conv2d(in_channels: usize, out_channels: usize) -> Self {
        Self::floats(
            upsampled::task(in_channels, out_channels),
            upsampled::weights(in_channels, out_channels),
        )
    }

    /// Of a linear projection.
    pub fn of_linear() -> Self {
        Self::floats(projection::SCRATCH, 0)
    }

    /// Of attention in heads of `size` features.
    pub fn of_attention(size: usize) -> Self {
        Self::floats(attention::scratch(size, size), 0)
    }
}
