//! The scratch memory of operations, on each kind of device.

use candle_core::{DType, Device};

use crate::capabilities::{Backend, Capabilities};
use crate::cpu::convolution::upsampled;
use crate::cpu::{attention, convolution, projection};
use crate::fused_attention::{SCORES, fused_head, fused_on_cuda};

/// Scratch bytes of kernels, beside their inputs and outputs.
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

/// Scratch bytes of operations on `device`, an NVIDIA GPU, beside what [`Capabilities`] says: the weights of a
/// convolution with their channels last, at most 2560 to 1280 channels in 16 bits, and the parts of its sums; before
/// compute capability 8.0 also the scores of attention.
pub fn scratch_of_gpu(device: &Device) -> u64 {
    const WEIGHTS: u64 = 2 * 9 * 2560 * 1280;
    const PARTS: u64 = 4 * 256 * 128 * 128;
    let scores = if has_fused_attention(device) {
        0
    } else {
        (SCORES * BYTES_OF_SCORE_ON_CUDA) as u64
    };
    WEIGHTS + PARTS + scores
}

/// Whether an NVIDIA GPU computes attention in one kernel where [`fused_on_cuda`] says so.
fn has_fused_attention(device: &Device) -> bool {
    #[cfg(feature = "cuda")]
    return crate::cuda::has_tensor_cores(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        true
    }
}

/// The bytes of a score of 16-bit attention in chunks on an NVIDIA GPU: in 32 bits, and its weight.
const BYTES_OF_SCORE_ON_CUDA: usize = 4 + 2;

impl Capabilities {
    /// The size with which attention stores heads of `size` values once more: queries, keys, values and results.
    /// Zero where it reads them in place.
    pub fn stored_head(&self, size: usize, activation_type: DType) -> usize {
        match self.backend {
            Backend::Metal => match fused_head(size, activation_type) {
                Some(fused) if fused == size => 0,
                Some(fused) => fused,
                None => size,
            },
            Backend::Cuda if fused_on_cuda(size, activation_type) => 0,
            Backend::Cuda => size,
            Backend::Cpu => 0,
        }
    }

    /// The scratch memory of attention with heads of `size` values.
    pub fn attention_scratch(&self, size: usize, activation_type: DType) -> Scratch {
        let is_fused = match self.backend {
            Backend::Cpu => return Scratch::of_attention(size),
            Backend::Cuda => fused_on_cuda(size, activation_type),
            Backend::Metal => fused_head(size, activation_type).is_some(),
        };
        let bytes_of_score = match (self.backend, activation_type) {
            // In 32 bits the weight takes the place of the score.
            (Backend::Cuda, DType::F16 | DType::BF16) => BYTES_OF_SCORE_ON_CUDA,
            _ => activation_type.size_in_bytes(),
        };
        Scratch {
            per_thread: 0,
            shared: match is_fused {
                true => 0,
                false => (SCORES * bytes_of_score) as u64,
            },
        }
    }

    /// The scratch memory of a convolution after upsampling, banded or not.
    pub fn upsampled_conv2d_scratch(&self, in_channels: usize, out_channels: usize) -> Scratch {
        match self.backend {
            Backend::Cuda | Backend::Metal => Scratch::default(),
            Backend::Cpu => Scratch::of_upsampled_conv2d(in_channels, out_channels),
        }
    }
}
