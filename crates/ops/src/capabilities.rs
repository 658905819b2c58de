//! What each device can do: the only place that tells a CPU, an NVIDIA GPU and an Apple GPU apart.
//!
//! Operations choose their kernels by [`Backend`]. Everything else takes from [`Capabilities`] the fact that it
//! depends on. A device that learns something, such as a fused kernel, gets an arm in the operation and
//! another value in its table below.

use candle_core::{DType, Device};

/// The kernels that run operations, one set for each kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A CPU: the kernels of this crate.
    Cpu,
    /// An NVIDIA GPU: cuBLAS' matrix products, and the kernels of this crate in a build with the feature `cuda`.
    Cuda,
    /// An Apple GPU: candle's matrix products and attention, and the kernels of this crate.
    Metal,
}

impl Backend {
    /// The backend that computes with the tensors of `device`.
    pub const fn of(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) => Self::Cuda,
            Device::Metal(_) => Self::Metal,
        }
    }

    /// `cpu`, `cuda` or `metal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }
}

/// Where the tensors of a device are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// On the heap of the process.
    Host,
    /// In buffers of the device, which are part of the machine's memory.
    Unified,
    /// In memory of the device's own. Its tensors take none of the machine's memory.
    Discrete,
}

/// What a device can do, and how its operations use memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The kernels that run operations.
    pub backend: Backend,
    /// Where tensors are.
    pub memory: Memory,
    /// Whether operations take weights of any floating-point type and widen them. Activations are then 32-bit
    /// floats. On other devices activations and weights share a type.
    pub widens_weights: bool,
    /// Whether linear layers decode the whole of a quantised weight to a tensor, in the type of activations, for each
    /// product. Elsewhere the product decodes what it multiplies.
    pub decodes_whole_weights: bool,
    /// Whether operations compute on rayon's threads, so that [`parallel_map`](crate::parallel_map) runs
    /// independent ones in parallel.
    pub computes_on_threads: bool,
    /// The rows of activations from which a matrix product keeps the whole device busy. With more rows at a
    /// time it takes more memory and is no faster.
    pub saturating_rows: usize,
    /// The values of a feature map from which a convolution keeps the whole device busy, and the work beside it is
    /// small. Larger bands of an image take more memory and are hardly faster.
    pub saturating_values: usize,
    /// Whether linear layers apply an activation, a gate or a residual before they store their results.
    /// Elsewhere the results of the product are a tensor of their own.
    pub fuses_epilogues: bool,
    /// Whether the gates of GEGLU are a tensor of their own beside its values.
    pub stores_gates: bool,
    /// Whether [`BandedConv2d::after_upsampling`](crate::BandedConv2d::after_upsampling) reads the smaller
    /// image. Elsewhere the upsampled image is a tensor of its own.
    pub fuses_upsampling: bool,
    /// Whether attention stores the keys once more, sorted by heads.
    pub copies_keys: bool,
}

const CPU: Capabilities = Capabilities {
    backend: Backend::Cpu,
    memory: Memory::Host,
    widens_weights: true,
    decodes_whole_weights: false,
    computes_on_threads: true,
    saturating_rows: 1024,
    saturating_values: 1 << 22,
    fuses_epilogues: true,
    stores_gates: false,
    fuses_upsampling: true,
    copies_keys: false,
};

const CUDA: Capabilities = Capabilities {
    backend: Backend::Cuda,
    memory: Memory::Discrete,
    widens_weights: false,
    decodes_whole_weights: true,
    computes_on_threads: false,
    saturating_rows: 8192,
    saturating_values: 1 << 25,
    // In place, which takes no more memory.
    fuses_epilogues: true,
    stores_gates: true,
    fuses_upsampling: true,
    copies_keys: false,
};

const METAL: Capabilities = Capabilities {
    backend: Backend::Metal,
    memory: Memory::Unified,
    widens_weights: false,
    decodes_whole_weights: true,
    computes_on_threads: false,
    saturating_rows: 4096,
    saturating_values: 1 << 22,
    // In place, which takes no more memory.
    fuses_epilogues: true,
    stores_gates: true,
    fuses_upsampling: true,
    copies_keys: false,
};

impl Capabilities {
    /// The capabilities of `device`. Asking costs nothing: they depend on the kind of device alone.
    pub const fn of(device: &Device) -> &'static Self {
        match Backend::of(device) {
            Backend::Cpu => &CPU,
            Backend::Cuda => &CUDA,
            Backend::Metal => &METAL,
        }
    }

    /// The type of activations in a network with weights of type `weights`. Biases and the weights of norms
    /// are kept in this type too.
    pub const fn activation_type(&self, weights: DType) -> DType {
        if self.widens_weights { DType::F32 } else { weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_computes_in_32_bits_and_a_gpu_in_the_type_of_the_weights() {
        let cpu = Capabilities::of(&Device::Cpu);
        assert_eq!((cpu.backend.name(), cpu.memory), ("cpu", Memory::Host));
        for weights in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(cpu.activation_type(weights), DType::F32);
            for gpu in [CUDA, METAL] {
                assert_eq!(gpu.activation_type(weights), weights);
            }
        }
    }

    #[test]
    fn tensors_are_on_the_heap_only_where_threads_compute_with_them() {
        for capabilities in [CPU, CUDA, METAL] {
            let on_the_heap = capabilities.memory == Memory::Host;
            assert_eq!(on_the_heap, capabilities.computes_on_threads, "{capabilities:?}");
        }
    }
}
