//! Files of named tensors, and where the blocks of a network live.
//!
//! Four nouns and how they meet: a [`ModelFolder`] is a set of named files, on disk or inside the binary;
//! a [`Checkpoint`] is one network's tensors in such files, safetensors or PyTorch's own, known by their headers alone; [`Weights`] is a
//! scope of names inside a checkpoint together with how its tensors are to be held (device, type,
//! residency); [`Blocks`] are the parts of a network in the order in which its forward pass wants them.
//!
//! A [`LoraFile`] changes some of a checkpoint's tensors while they are read.
//!
//! What a network will read is known from headers when its blocks are listed ([`Blocks::new`]): a tensor that is missing, or
//! of another shape or type, is an error before any weight is read.
//!
//! A tensor is read when it is asked for, with positioned reads into a buffer of its own: no memory map, so
//! that what is resident is what was asked for. Whether a block stays in memory after its turn is decided
//! here and nowhere else, and never changes a result.

mod allocator;
mod blocks;
mod buffer_pool;
mod buffers;
mod checkpoint;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod device_memory;
mod error;
mod folder;
mod header;
mod host_memory;
mod identity;
mod inspection;
mod lock;
mod lora;
mod low_rank_update;
mod memory_pressure;
mod model_family;
mod residency;
mod safetensors;
mod saved_name;
mod similar_name;
mod source;
mod stored;
mod torch;
mod weight_options;
mod weights;
mod wrong_file;

pub use allocator::{
    CountingAllocator, allocated_bytes, allocated_peak, keep_heap_small, release_free_memory,
    restart_allocated_peak, take_allocated_peak,
};
pub use blocks::{BlockGuard, Blocks, Pass};
pub use checkpoint::Checkpoint;
pub use device::{
    bound_device_memory, bytes_uploaded, device_memory, gpu_name, is_out_of_device_memory, open_cuda,
    release_device_memory, restart_device_peak,
};
pub use device_memory::DeviceMemory;
pub use error::{Error, Result};
pub use folder::{EmbeddedFile, ModelFolder};
pub use header::{ElementType, TensorHeader};
pub use host_memory::HostMemory;
pub use identity::FileIdentity;
pub use lora::{Adapters, Fit, LoraFile, ModelPart, adapter_settings};
pub use memory_pressure::MemoryPressure;
pub use model_family::ModelFamily;
pub use residency::Residency;
pub use saved_name::{WeightFiles, weight_files};
pub use source::bytes_read;
pub use weight_options::{PageCache, WeightOptions, WeightType};
pub use weights::{Table, Weights};
