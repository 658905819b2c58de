//! Which device a run computes on, and in which type it holds its weights there.

use std::num::NonZeroUsize;

use candle_core::Device;
pub use sd_ops::leave_threads_to_rayon;
use sd_weights::{WeightType, open_cuda};

use crate::request::{DeviceChoice, TypeChoice};
use crate::{Error, Result};

/// Opens the device that was chosen. Automatic takes a GPU where this build has one that answers, else the
/// processor.
///
/// # Errors
/// A device was named that this build or this machine does not have.
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

/// Has `threads` threads compute on the processor from now on, or as many as the processors that this process may use.
/// Their number changes no image. It can be said once, before anything is computed; where it is not, the threads are
/// started by the first that computes, which cannot say that there are none.
///
/// # Errors
/// The threads were started before, or the system has none to give.
pub fn compute_with(threads: Option<NonZeroUsize>) -> Result<()> {
    // None are as many as there are processors.
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

/// The type that weights are held in. Automatic keeps what the files store, on every device: the choice must
/// not depend on how much memory there is, or the image would.
pub fn weight_type(choice: TypeChoice) -> WeightType {
    match choice {
        TypeChoice::Automatic => WeightType::AsStored,
        TypeChoice::F32 => WeightType::F32,
        TypeChoice::Bf16 => WeightType::Bf16,
    }
}

/// Whether blocks that stay in memory are read before the first pass over a network. A CPU computes with the first
/// blocks while those that follow are read.
pub(crate) fn reads_before_passes(device: &Device) -> bool {
    !device.is_cpu()
}

/// The device's name as the command line and the metadata write it.
pub fn name(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// candle appends a backtrace to some of its messages; one line says what happened.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
