//! Model files as named tensors, and the residency of network blocks in memory.
//!
//! A [`ModelSource`] gives the configurations, tensors and tokenizers of a model by component. A
//! [`ModelFolder`] is a model in the layout of diffusers, on disk or inside the binary. A [`Checkpoint`]
//! holds the headers of one network's tensors, in safetensors or PyTorch files. [`Weights`] are a scope of
//! names inside a checkpoint, with the [`WeightOptions`] that say how tensors are held: device, data type,
//! residency. [`Blocks`] are the blocks of a network in the order of its forward pass. A [`LoraFile`] updates
//! tensors of a checkpoint while they are read. A [`Naming`] is a table of the names that other programs have
//! for the tensors of a network.
//!
//! [`Blocks::new`] checks from headers every tensor that a network will read. A tensor that is missing, or
//! has another shape or type, is an error before any weight is read.
//!
//! Tensors are read with positioned reads into buffers, not through a memory map, so that resident memory is
//! exactly what was requested. Only this crate decides whether a block stays in memory after its turn.
//! Residency never changes a result.

mod allocator;
mod block_cache;
mod blocks;
mod buffer_pool;
mod buffers;
#[cfg(any(metal, test))]
mod caught_panic;
mod checkpoint;
mod combine;
mod convert;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod device_memory;
mod disk_rate;
mod error;
mod gguf;
mod header;
mod host_memory;
mod identity;
mod inspection;
mod lock;
mod lora;
mod memory_pressure;
#[cfg(metal)]
mod metal;
mod metal_device;
mod model_family;
mod model_source;
mod naming;
#[cfg(any(feature = "cuda", metal))]
mod parts;
mod process_memory;
mod program_pages;
mod projection_weight;
mod quantized;
mod requested;
mod residency;
mod safetensors;
mod similar_name;
mod source;
mod stored;
mod textual_inversion;
mod torch;
mod uploads;
mod weight_options;
mod weight_update;
mod weights;
mod wrong_file;

pub use allocator::{
    CountingAllocator, allocated_bytes, allocated_peak, keep_heap_small, release_free_memory,
    restart_allocated_peak, take_allocated_peak,
};
pub use block_cache::BlockCache;
pub use blocks::{BlockCount, BlockGuard, Blocks, Pass};
pub use checkpoint::Checkpoint;
pub use convert::{Conversion, ConversionProgress, ConversionReport, Encoding, FileLayout};
pub use device::{
    HAS_CUDA, LIBRARY_BYTES, allocated_unified_memory, bound_device_memory, cuda_devices, device_memory,
    gpu_name, is_out_of_device_memory, open_cuda, recommended_working_set, release_device_memory,
    restart_device_peak, with_autorelease_pool,
};
pub use device_memory::DeviceMemory;
pub use disk_rate::disk_rate;
pub use error::{Error, Result};
pub use gguf::GgufMetadata;
pub use header::{ElementType, TensorHeader};
pub use host_memory::HostMemory;
pub use identity::FileIdentity;
pub use lora::{Adapters, Fit, LoraFile, LoraNetwork, ModelPart, adapter_settings};
pub use memory_pressure::MemoryPressure;
pub use metal_device::{MetalGpu, MetalUnavailable, metal_gpu, open_metal};
pub use model_family::ModelFamily;
pub use model_source::{
    BuiltInTokenizer, ClipPadding, EmbeddedFile, FileContent, HeaderCache, MODEL_INDEX, ModelFile,
    ModelFiles, ModelFolder, ModelSource, NetworkFiles, NetworkKind, Prediction, SourcePart, SpecialIds,
    TokenizerFiles, Vocabulary, WeightFiles, checkpoint_content, open_controlnet, weight_files,
};
pub use naming::{Layout, Naming, Translated, Translation};
pub use process_memory::{ProcessMemory, process_memory};
pub use program_pages::release_program_pages;
pub use projection_weight::ProjectionWeight;
pub use requested::RequestedTensors;
pub use residency::Residency;
pub use source::bytes_read;
pub use textual_inversion::EmbeddingFile;
pub use uploads::bytes_uploaded;
pub use weight_options::{PageCache, WeightOptions, WeightType};
pub use weights::{Table, Weights};
