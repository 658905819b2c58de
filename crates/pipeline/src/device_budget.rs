//! The budget of a GPU with memory of its own, and of the host memory beside it.

use candle_core::Device;
use sd_memory::{Bytes, DeviceInfo};
use sd_weights::{HostMemory, bound_device_memory, device_memory, release_device_memory};

use crate::Result;

/// What a GPU's driver takes for the process: its context, the kernels' code, the products' scratch. It took 0.58 GB on an
/// H200 with driver 580.
const DRIVER: u64 = 640 << 20;
/// Gaps between tensors in a GPU's memory, and what operations take there beside what the networks count with. With SD 3.5
/// Large at 1024x1024 both came to 0.30 GB.
const GAPS: u64 = 384 << 20;
/// What the process takes of the host's memory beside a GPU, apart from weights that it keeps there.
const PROCESS: u64 = 768 << 20;

/// What a run takes on `device` before it holds a tensor, or nothing where the device has no memory of its own.
pub(crate) fn process(device: &Device) -> Option<u64> {
    device.is_cuda().then_some(DRIVER + GAPS)
}

/// What tensors on `device` may take now, if it has memory of its own.
///
/// # Errors
/// The device fails.
pub(crate) fn available(device: &Device) -> Result<Option<Bytes>> {
    let memory = device_memory(device)?;
    Ok(memory.map(|memory| Bytes(memory.free + memory.held)))
}

/// Keeps what tensors take on `device` to `budget`.
///
/// # Errors
/// The device fails.
pub(crate) fn bound(device: &Device, budget: Bytes) -> Result<()> {
    if process(device).is_some() {
        bound_device_memory(device, Some(budget.0.saturating_sub(DRIVER)))?;
    }
    Ok(())
}

/// Gives back what `device` keeps for tensors to come.
pub(crate) fn release(device: &Device) {
    // A device that fails here fails again where somebody is told.
    let _ = release_device_memory(device);
}

/// What is in use on `device` now, if it has memory of its own.
pub(crate) fn info(device: &Device) -> Option<DeviceInfo> {
    let memory = device_memory(device).ok().flatten()?;
    Some(DeviceInfo {
        used: Bytes(memory.total - memory.free),
        total: Bytes(memory.total),
    })
}

/// The most that the run had on `device`, if it has memory of its own.
pub(crate) fn peak(device: &Device) -> Option<Bytes> {
    let memory = device_memory(device).ok().flatten()?;
    // What the driver counts and no pool holds is the driver's own, and that of other programs.
    let beside = memory.total - memory.free - memory.held;
    Some(Bytes(memory.held_peak + beside))
}

/// The host memory in which weights may stay beside `device`: of `wanted`, or else of what is available less a margin.
pub(crate) fn host_memory(device: &Device, wanted: Option<Bytes>, default: Bytes) -> HostMemory {
    if process(device).is_none() {
        return HostMemory::default();
    }
    HostMemory::up_to(wanted.unwrap_or(default).0.saturating_sub(PROCESS))
}

/// What is available now less a margin for everybody else, which is larger than what a machine is found short at.
pub(crate) fn less_margin(available: u64) -> Bytes {
    const LEAST_MARGIN: u64 = 768 << 20;
    Bytes(available.saturating_sub(LEAST_MARGIN.max(available / 10)))
}
