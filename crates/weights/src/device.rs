//! Devices with memory of their own: opening them, and measuring and limiting their memory.

use candle_core::{Device, Result};

use crate::DeviceMemory;

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

/// The name of a GPU as its driver reports it, such as `NVIDIA H100 80GB HBM3`, or the architecture of an
/// Apple GPU, such as `applegpu_g14d`. GPUs of the same name execute the same instructions. `None` for a CPU,
/// or where the driver reports no name.
pub fn gpu_name(device: &Device) -> Option<String> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => device.cuda_stream().context().name().ok(),
        #[cfg(target_os = "macos")]
        Device::Metal(device) => Some(device.metal_device().architecture_name()),
        _ => None,
    }
}

/// The memory figures of `device`, or `None` where it computes in host memory or reports no figures.
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
        Device::Cuda(device) => crate::cuda::release(device),
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
    const WORDS: [&str; 4] = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory",
        "Failed to create metal resource: Buffer",
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

/// The bytes of weights that this process has copied to devices by streaming so far.
pub fn bytes_uploaded() -> u64 {
    #[cfg(feature = "cuda")]
    return crate::cuda::bytes_uploaded();
    #[cfg(not(feature = "cuda"))]
    return 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_room_is_told_from_one_that_fails() {
        #[derive(Debug, thiserror::Error)]
        #[error("DriverError({0})")]
        struct Driver(&'static str);

        let wrapped = |words| candle_core::Error::wrap(Driver(words)).context("while it computed");
        for full in [
            wrapped("CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\""),
            wrapped("Failed to create metal resource: Buffer").bt(),
        ] {
            assert!(is_out_of_device_memory(&full), "{full}");
        }
        let broken = wrapped("CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\"");
        assert!(!is_out_of_device_memory(&broken));
    }
}
