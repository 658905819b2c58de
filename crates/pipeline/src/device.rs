//! The device of a run, the data type of its weights, and its threads.

use std::num::NonZeroUsize;

use candle_core::{Device, DeviceLocation};
pub use sd_ops::leave_threads_to_rayon;
use sd_ops::{Backend, Capabilities, Memory};
use sd_weights::{WeightType, open_cuda};

use crate::request::{DeviceChoice, TypeChoice};
use crate::{Error, Result};

/// Opens the chosen device. `Auto` takes a GPU if this build supports one and it responds, else the CPU.
///
/// # Errors
/// The chosen device is not supported by this build, or this machine does not have it.
pub fn open(choice: DeviceChoice) -> Result<Device> {
    let unusable = |device: String| {
        move |error: candle_core::Error| Error::Device {
            device,
            reason: first_line(&error),
        }
    };
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) => open_cuda(index).map_err(unusable(format!("cuda:{index}"))),
        DeviceChoice::Metal => Device::new_metal(0).map_err(unusable("metal".to_owned())),
        DeviceChoice::Automatic => Ok(open_cuda(0)
            .or_else(|_| Device::new_metal(0))
            .unwrap_or(Device::Cpu)),
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
    }
}

/// Whether resident blocks are read before the first pass over a network. In host memory, the first pass
/// computes with the first blocks while the next ones are read.
pub(crate) fn reads_before_passes(device: &Device) -> bool {
    Capabilities::of(device).memory != Memory::Host
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
