//! How the weights of a network are held: device, data type, residency.

use candle_core::{DType, Device};

use crate::device::widens_weights;
use crate::{BlockCache, HostMemory, MemoryPressure, Residency};

/// The data type in which weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// The type of the file: weights stored in 16 bits stay in 16 bits. The weights of projections stay quantised
    /// as well. Others, and those that a LoRA updates, become `bfloat16`. A GPU keeps them with every type, which is that
    /// of their values in products.
    AsStored,
    /// 32-bit floats.
    F32,
    /// `bfloat16`.
    Bf16,
    /// 16-bit floats of IEEE 754: three more bits of precision than `bfloat16`, and no value above 65504. A GPU
    /// computes in them too, so that networks with larger activations must not be held so.
    F16,
}

/// What happens to the pages of streamed files in the system's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PageCache {
    /// Pages stay until the network is dropped, so that the next pass finds them. For machines with memory to
    /// spare.
    #[default]
    Keep,
    /// Pages are released right after reading, so that they do not displace what other programs use.
    Release,
}

/// How the tensors of a network are stored in memory after they are read.
#[derive(Debug, Clone)]
pub struct WeightOptions {
    /// The device that computes with them.
    pub device: Device,
    /// The type that tensors are held in.
    pub weight_type: WeightType,
    /// Which blocks stay in memory.
    pub residency: Residency,
    /// What happens to the page cache of streamed blocks.
    pub page_cache: PageCache,
    /// Requests to free resident blocks.
    pub memory_pressure: MemoryPressure,
    /// Host memory that caches streamed blocks of a device with memory of its own.
    pub host_memory: HostMemory,
    /// The cache for resident blocks beyond the life of their network. `None` if they are dropped with it.
    pub block_cache: Option<BlockCache>,
}

impl WeightOptions {
    /// Options with the system's page cache kept, no memory pressure, no host memory beside the device, and no
    /// cache of blocks.
    pub fn new(device: Device, weight_type: WeightType, residency: Residency) -> Self {
        Self {
            device,
            weight_type,
            residency,
            page_cache: PageCache::default(),
            memory_pressure: MemoryPressure::default(),
            host_memory: HostMemory::default(),
            block_cache: None,
        }
    }

    /// The same options with another residency.
    pub fn with_residency(&self, residency: Residency) -> Self {
        Self {
            residency,
            ..self.clone()
        }
    }

    /// The same options for a network that runs once: nothing is kept on the device, in host memory, in the
    /// page cache or in the cache of blocks.
    pub fn for_one_pass(&self) -> Self {
        Self {
            residency: Residency::Streamed,
            page_cache: PageCache::Release,
            host_memory: HostMemory::default(),
            block_cache: None,
            ..self.clone()
        }
    }

    /// The type of activations: 32-bit floats on a CPU, whose products take weights of any type, and the type
    /// of the weights on a GPU.
    pub fn activation_type(&self) -> DType {
        match self.weight_type {
            _ if widens_weights(&self.device) => DType::F32,
            WeightType::AsStored | WeightType::Bf16 => DType::BF16,
            WeightType::F16 => DType::F16,
            WeightType::F32 => DType::F32,
        }
    }

    /// Whether the weights of projections stay quantised. On a GPU that changes no result, whatever their type: a
    /// product there takes the same values, rounded to the type of the activations.
    pub(crate) fn keeps_quantized(&self) -> bool {
        self.weight_type == WeightType::AsStored || !widens_weights(&self.device)
    }

    /// The type that tensors are converted to, or `None` for the type of the file.
    pub(crate) fn held_type(&self) -> Option<DType> {
        match self.weight_type {
            WeightType::AsStored if widens_weights(&self.device) => None,
            WeightType::AsStored | WeightType::Bf16 => Some(DType::BF16),
            WeightType::F16 => Some(DType::F16),
            WeightType::F32 => Some(DType::F32),
        }
    }
}
