//! What reading weights has to know of a device, and devices with memory of their own: opening them, and
//! measuring and limiting their memory.

use std::sync::Arc;

use candle_core::{Device, Result};

use crate::buffers::{Buffers, HostBuffers};
use crate::{DeviceMemory, HostMemory};

/// What the libraries of a GPU's maker take of the memory of the process, also where the CPU computes. With CUDA 13
/// it was 141 MB beside SD 3.5 Large on a machine with an H200, with `--device cpu`.
pub const LIBRARY_BYTES: u64 = if cfg!(feature = "cuda") { 160 << 20 } else { 0 };

/// Opens the NVIDIA GPU number `ordinal` so that blocks can be streamed to it. A device that candle opens by
/// itself does not work with a thread that reads ahead.
///
/// # Errors
/// There is no such GPU, or this build has no support for CUDA (feature `cuda`).
pub fn open_cuda(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::cuda::open(ordinal).map(Device::Cuda);
    #[cfg(not(feature = "cuda"))]
    return Device::new_cuda(ordinal);
}

/// Whether this build has support for NVIDIA GPUs (feature `cuda`).
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// How many NVIDIA GPUs this machine has; none for a build without support for CUDA (feature `cuda`).
pub fn cuda_devices() -> usize {
    #[cfg(feature = "cuda")]
    return crate::cuda::count();
    #[cfg(not(feature = "cuda"))]
    return 0;
}

/// Whether `device` computes in the memory that files are read to, as CPUs and Apple GPUs do. A block is then
/// ready for its pass once it is read. For other devices it is copied.
pub(crate) fn computes_in_host_memory(device: &Device) -> bool {
    device.is_cpu() || device.is_metal()
}

/// Whether products on `device` take weights of any floating-point type, with activations of 32-bit floats.
/// On other devices activations and weights share a type.
pub(crate) fn widens_weights(device: &Device) -> bool {
    device.is_cpu()
}

/// The buffers that blocks are streamed into for `device`, with a cache of them in `host_memory` if the device
/// has memory of its own.
pub(crate) fn streaming_buffers(
    device: &Device,
    host_memory: &HostMemory,
) -> crate::Result<Arc<dyn Buffers>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let buffers = crate::cuda::CudaBuffers::new(device, host_memory.clone())?;
            Ok(Arc::new(buffers))
        }
        _ => {
            let _ = host_memory;
            Ok(unshared_buffers(device))
        }
    }
}

/// The buffers of tensors for `device` that are not streamed.
pub(crate) fn unshared_buffers(device: &Device) -> Arc<dyn Buffers> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Arc::new(crate::cuda::ResidentBuffers::new(device)),
        #[cfg(metal)]
        Device::Metal(device) => Arc::new(crate::metal::MetalBuffers::new(device)),
        _ => Arc::new(HostBuffers::new(device.clone())),
    }
}

/// Runs `work` and then frees the temporary objects that Apple's frameworks made for it on this thread, such
/// as command buffers. Elsewhere they stay until the thread ends. Each step of a run on an Apple GPU is to be
/// run in this way. On other systems `work` is run and nothing else.
#[doc(alias = "autoreleasepool")]
pub fn with_autorelease_pool<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(metal)]
    return objc2::rc::autoreleasepool(|_| work());
    #[cfg(not(metal))]
    return work();
}

/// The name of a GPU as its driver reports it, such as `NVIDIA H100 80GB HBM3`, or the architecture of an
/// Apple GPU, such as `applegpu_g14d`. GPUs of the same name execute the same instructions. `None` for a CPU,
/// or where the driver reports no name.
pub fn gpu_name(device: &Device) -> Option<String> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => device.cuda_stream().context().name().ok(),
        #[cfg(metal)]
        Device::Metal(device) => Some(device.metal_device().architecture_name()),
        _ => None,
    }
}

/// The bytes within which Metal recommends that an Apple GPU, which shares the memory of the machine, be used.
/// `None` for other devices.
pub fn recommended_working_set(device: &Device) -> Option<u64> {
    match device {
        #[cfg(metal)]
        Device::Metal(device) => Some(device.metal_device().recommended_max_working_set_size() as u64),
        _ => None,
    }
}

/// The bytes of the memory of the machine that this process has allocated for an Apple GPU: Metal's buffers,
/// and the memory of streamed blocks between two uses. `None` for other devices.
pub fn allocated_unified_memory(device: &Device) -> Option<u64> {
    match device {
        #[cfg(metal)]
        Device::Metal(device) => Some(crate::metal::allocated(device)),
        _ => None,
    }
}

/// The memory figures of a `device` that has memory of its own, or `None`. An Apple GPU has none: what it
/// uses is part of the memory of the process, and [`allocated_unified_memory`] says how much.
///
/// # Errors
/// The device fails.
pub fn device_memory(device: &Device) -> Result<Option<DeviceMemory>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::memory(device).map(Some),
        _ => Ok(None),
    }
}

/// Resets the peaks to the memory in use now.
///
/// # Errors
/// The device fails.
pub fn restart_device_peak(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::restart_peak(device),
        _ => Ok(()),
    }
}

/// Waits for `device` and releases the free memory of its pool. It is called at the end of a stage.
///
/// # Errors
/// The device fails, possibly in work that was queued before.
pub fn release_device_memory(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            crate::cuda::release_staging(device);
            crate::cuda::release(device)
        }
        #[cfg(metal)]
        Device::Metal(device) => crate::metal::release(device),
        _ => Ok(()),
    }
}

/// Limits the tensors of this process on `device` to `bytes` from now on, or removes the limit where `bytes`
/// is `None`. An allocation beyond the limit fails even if the device has free memory. Existing tensors are
/// not counted.
///
/// # Errors
/// The device fails.
pub fn bound_device_memory(device: &Device, bytes: Option<u64>) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::bound(device, bytes),
        _ => {
            let _ = bytes;
            Ok(())
        }
    }
}

/// Whether `error` means that a device is out of memory.
pub fn is_out_of_device_memory(error: &candle_core::Error) -> bool {
    /// The messages of the CUDA driver, of its libraries and of Metal. Errors arrive as text, wrapped in
    /// other errors.
    const WORDS: [&str; 6] = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory",
        "Failed to create metal resource: Buffer",
        "Insufficient Memory",
        "kIOGPUCommandBufferCallbackErrorOutOfMemory",
    ];
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if WORDS.iter().any(|words| text.contains(words)) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_is_distinguished_from_other_failures() {
        #[derive(Debug, thiserror::Error)]
        #[error("DriverError({0})")]
        struct Driver(&'static str);

        let wrapped = |words| candle_core::Error::wrap(Driver(words)).context("while it computed");
        for full in [
            wrapped("CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\""),
            wrapped("Failed to create metal resource: Buffer").bt(),
            wrapped("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
        ] {
            assert!(is_out_of_device_memory(&full), "{full}");
        }
        for broken in [
            wrapped("CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\""),
            wrapped("Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)"),
        ] {
            assert!(!is_out_of_device_memory(&broken), "{broken}");
        }
    }
}
