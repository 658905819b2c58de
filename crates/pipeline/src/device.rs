//! The device of a run, how it is opened, the data type of its weights, and its threads.

use std::num::NonZeroUsize;

use candle_core::{DType, Device, DeviceLocation, Tensor};
pub use sd_ops::leave_threads_to_rayon;
use sd_ops::{Backend, Capabilities, Memory};
pub use sd_weights::{HAS_CUDA, cuda_devices};
use sd_weights::{MetalUnavailable, WeightType, open_cuda, open_metal};

use crate::request::{DeviceChoice, TypeChoice};
use crate::{Error, Result};

/// An opened device.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// Why the automatic choice is the CPU, in one line, where this build supports GPUs.
    pub fallback: Option<String>,
}

/// Opens the chosen device. `Auto` takes a GPU if this build supports one and it responds, else the CPU.
///
/// # Errors
/// The chosen device is not supported by this build, or this machine does not have it. It does not panic.
pub fn open(choice: DeviceChoice) -> Result<Opened> {
    let device = match choice {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(index) => open_cuda(index).map_err(|error| Error::Device {
            device: choice.to_string(),
            reason: match error {
                candle_core::Error::NotCompiledWithCudaSupport => {
                    "this build has no support for it".to_owned()
                }
                error => first_line(&error),
            },
        })?,
        DeviceChoice::Metal => open_metal()?,
        DeviceChoice::Automatic => return Ok(automatic(open_cuda(0), open_metal)),
    };
    Ok(Opened {
        device,
        fallback: None,
    })
}

/// The first GPU that can be opened, or the CPU.
fn automatic(
    cuda: candle_core::Result<Device>,
    metal: impl FnOnce() -> std::result::Result<Device, MetalUnavailable>,
) -> Opened {
    let mut reasons = Vec::new();
    let cuda = cuda.map_err(|error| {
        if !matches!(error, candle_core::Error::NotCompiledWithCudaSupport) {
            reasons.push(format!("cuda cannot be used: {}", first_line(&error)));
        }
    });
    let device = cuda.or_else(|()| {
        metal().map_err(|error| {
            if error != MetalUnavailable::NotBuilt {
                reasons.push(Error::from(error).to_string());
            }
        })
    });
    Opened {
        fallback: (device.is_err() && !reasons.is_empty())
            .then(|| format!("the CPU computes, not a GPU: {}", reasons.join("; "))),
        device: device.unwrap_or(Device::Cpu),
    }
}

/// Sets the number of CPU threads; None uses every CPU that the process may use. It changes no image. It can
/// be set once, before the first computation, which otherwise starts the threads itself.
///
/// # Errors
/// The threads were started before, or the system refuses them.
pub fn compute_with(threads: Option<NonZeroUsize>) -> Result<()> {
    // rayon takes 0 as all CPUs.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.map_or(0, NonZeroUsize::get))
        .build_global()
        .map_err(|error| Error::Device {
            device: "cpu".to_owned(),
            reason: match threads {
                Some(threads) => format!("it has no {threads} threads: {error}"),
                None => format!("it has no threads: {error}"),
            },
        })
}

/// The data type that weights are held in. `Auto` keeps the stored type, on every device: the type must not
/// depend on the available memory, or the image would.
pub fn weight_type(choice: TypeChoice) -> WeightType {
    match choice {
        TypeChoice::Automatic => WeightType::AsStored,
        TypeChoice::F32 => WeightType::F32,
        TypeChoice::Bf16 => WeightType::Bf16,
        TypeChoice::F16 => WeightType::F16,
    }
}

/// The type of the weights of a network that needs the range of 32 bits or of `bf16`: the autoencoder (that of Stable
/// Diffusion XL overflows `f16`, which diffusers calls `force_upcast`), T5, and the upscaler. In place of `f16` they
/// have the stored type.
pub(crate) fn wide_weight_type(weight_type: WeightType) -> WeightType {
    match weight_type {
        WeightType::F16 => WeightType::AsStored,
        WeightType::AsStored | WeightType::F32 | WeightType::Bf16 => weight_type,
    }
}

/// Whether resident blocks are read before the first pass over a network. In host memory, the first pass
/// computes with the first blocks while the next ones are read.
pub(crate) fn reads_before_passes(device: &Device) -> bool {
    Capabilities::of(device).memory != Memory::Host
}

/// Whether the bits of a row of a result depend on that row alone, and not on how many are computed together: the kernels
/// of CPUs promise it.
pub(crate) fn rows_are_independent(device: &Device) -> bool {
    Capabilities::of(device).computes_on_threads
}

/// Waits for all work of `device` and reports the error of any part of it. Work is queued, and reading a
/// result back reports only the error of the copy: on an Apple GPU a command buffer that failed before it
/// would leave a result with whatever its buffer held.
///
/// # Errors
/// The device failed, now or since the last call.
pub(crate) fn finish(device: &Device) -> Result<()> {
    Ok(device.synchronize()?)
}

/// Converts `tensor` to f32 in host memory, once the work that it comes from has succeeded.
///
/// # Errors
/// The device failed.
pub(crate) fn to_host(tensor: &Tensor) -> Result<Tensor> {
    finish(tensor.device())?;
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}

/// The device's name, as the command line and the metadata write it.
pub fn name(device: &Device) -> &'static str {
    Backend::of(device).name()
}

/// The choice that opens `device` again, even if the machine then has other devices too.
pub(crate) fn settled(device: &Device) -> DeviceChoice {
    match device.location() {
        DeviceLocation::Cpu => DeviceChoice::Cpu,
        DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id),
        DeviceLocation::Metal { .. } => DeviceChoice::Metal,
    }
}

/// The first line of the message: candle appends a backtrace to some.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automatic_choice_says_why_it_is_the_cpu() {
        let not_built = || Err(candle_core::Error::NotCompiledWithCudaSupport);
        let old = || {
            Err(MetalUnavailable::OldSystem {
                version: "14.5".to_owned(),
            })
        };
        let opened = automatic(not_built(), old);
        assert!(opened.device.is_cpu());
        assert_eq!(
            opened.fallback.as_deref(),
            Some(
                "the CPU computes, not a GPU: metal cannot be used: macOS 14.5 is too old, it needs macOS 15 or later"
            )
        );
        let broken = Err(candle_core::Error::msg("CUDA_ERROR_NO_DEVICE\n   0: backtrace"));
        let opened = automatic(broken, || Err(MetalUnavailable::NotBuilt));
        assert_eq!(
            opened.fallback.as_deref(),
            Some("the CPU computes, not a GPU: cuda cannot be used: CUDA_ERROR_NO_DEVICE")
        );
        // Without support for GPUs there is nothing to say, and none is needed where one can be used.
        for usable in [
            automatic(not_built(), || Err(MetalUnavailable::NotBuilt)),
            automatic(Ok(Device::Cpu), old),
            automatic(not_built(), || Ok(Device::Cpu)),
        ] {
            assert_eq!(usable.fallback, None);
        }
    }
}
