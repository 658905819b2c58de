//! Devices that have memory of their own: opening them, and what their memory is used for.

use candle_core::{Device, Result};

use crate::DeviceMemory;

/// Opens the NVIDIA GPU number `ordinal`, so that blocks can be streamed to it: candle's own ways to open it do not go
/// together with a thread that reads ahead.
///
/// # Errors
/// There is none, or this build has no support for it (feature `cuda`).
pub fn open_cuda(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::cuda::open(ordinal).map(Device::Cuda);
    #[cfg(not(feature = "cuda"))]
    return Device::new_cuda(ordinal);
}

/// The model of the GPU that `device` is, as its driver calls it: `NVIDIA H100 80GB HBM3`, or on Apple's GPUs the
/// architecture, `applegpu_g14d`. Two with one name compute with the same instructions, whichever numbers they have in their
/// machines. Nothing where `device` is a processor, or the driver does not say.
pub fn gpu_name(device: &Device) -> Option<String> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => device.cuda_stream().context().name().ok(),
        #[cfg(target_os = "macos")]
        Device::Metal(device) => Some(device.metal_device().architecture_name()),
        _ => None,
    }
}

/// Reads the memory of `device`, or nothing where it computes in host memory or has no such figures.
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

/// Begins to look for new peaks, from what is in use now.
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

/// Waits for `device` and gives back what is kept there for tensors to come. It is to be called where a stage ends.
///
/// # Errors
/// The device fails, perhaps in something that it was told to do before.
pub fn release_device_memory(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::release(device),
        _ => Ok(()),
    }
}

/// Lets the tensors of this process on `device` take at most `bytes` together from now on, or as many as there are
/// where that is `None`: an allocation beyond fails, whatever the device has left. Tensors that are there already are not
/// counted.
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

/// Whether `error` says that a device had no memory left for what was asked of it.
pub fn is_out_of_device_memory(error: &candle_core::Error) -> bool {
    /// What CUDA's driver says, what its libraries say, and what Metal says of a buffer that it cannot make. Errors reach
    /// us as words, wrapped in others.
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

/// Bytes of weights that this process has copied to devices ahead of their use so far.
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
