//! The budget of a GPU with memory of its own, and of the host memory beside it.

use candle_core::Device;
use sd_memory::{Allowance, Bytes, DeviceInfo, Limit, machine_margin};
use sd_weights::{DeviceMemory, HostMemory, bound_device_memory, device_memory, release_device_memory};

use crate::Result;

/// What a GPU's driver comes to take for the process after it was opened: the code of kernels as they are first used. On an
/// H200 it was 2 MB with every model.
const LATER: u64 = 32 << 20;
/// What the process takes of the host's memory beside a GPU, apart from weights that it keeps there.
const PROCESS: u64 = 768 << 20;

/// What a run takes on `device` before it holds a tensor, and what operations take there beside what the networks count with;
/// or nothing where the device has no memory of its own.
pub(crate) fn process(device: &Device) -> Option<u64> {
    let memory = device_memory(device).ok().flatten()?;
    Some(driver(&memory) + sd_ops::scratch_of_plain_attention())
}

/// What the gaps between tensors take on `device` while activations of `bytes` come and go: as much again at the most where the
/// device has memory of its own. With XL at 1024x1024 0.7 GB of activations lay in 1.3 GB, and 1.4 GB in 2.2 with 32 bits.
pub(crate) fn gaps(device: &Device, bytes: u64) -> u64 {
    if device.is_cuda() { bytes } else { 0 }
}

/// What the driver takes for the process, or will have taken when the run ends.
fn driver(memory: &DeviceMemory) -> u64 {
    memory.driver.max(memory.driver_at_first + LATER)
}

/// What the process may take of `device` now, if it has memory of its own: what is left, and what it has.
///
/// # Errors
/// The device fails.
pub(crate) fn available(device: &Device) -> Result<Option<Bytes>> {
    let memory = device_memory(device)?;
    Ok(memory.map(|memory| Bytes(memory.free + memory.held + memory.driver)))
}

/// Keeps what the process takes on `device` to `bytes`, by what is left for tensors beside the driver's share.
///
/// # Errors
/// The device fails.
pub(crate) fn bound(device: &Device, bytes: Bytes) -> Result<()> {
    if let Some(memory) = device_memory(device)? {
        bound_device_memory(device, Some(bytes.0.saturating_sub(driver(&memory))))?;
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
    tracing::debug!(
        "of the GPU tensors took {} at the most, for which {} were held; its driver takes {}, {} when it was opened",
        Bytes(memory.used_peak),
        Bytes(memory.held_peak),
        Bytes(memory.driver),
        Bytes(memory.driver_at_first)
    );
    Some(Bytes(memory.held_peak + memory.driver))
}

/// The host memory in which weights may stay beside `device`: of `wanted`, or else of what is available less a margin.
pub(crate) fn host_memory(device: &Device, wanted: Option<Bytes>, default: Bytes) -> HostMemory {
    if !device.is_cuda() {
        return HostMemory::default();
    }
    HostMemory::up_to(wanted.unwrap_or(default).0.saturating_sub(PROCESS))
}

/// What a run on `device` may have where nobody says, beside a host that allows `host`, and what says so.
///
/// # Errors
/// The device fails.
pub(crate) fn default(device: &Device, host: &Allowance) -> Result<(Bytes, Limit)> {
    if let Some(available) = available(device)? {
        return Ok((less_margin(available), Limit::Device));
    }
    let of_host = (host.budget(), host.limit.clone());
    Ok(match working_set(device) {
        Some(limit) if limit < of_host.0 => (limit, Limit::WorkingSet { limit }),
        _ => of_host,
    })
}

/// What is `available` now less a margin for everybody else.
pub(crate) fn less_margin(available: Bytes) -> Bytes {
    available.saturating_sub(machine_margin(available))
}

/// Whether a run on `device` keeps to its budget. On Apple's GPUs it does not yet: on a stand-in for one SD 3.5 Large at
/// 1024x1024 held 22.7 GiB of buffers within 2 GB, where 1.8 GB were planned.
pub(crate) fn is_kept(device: &Device) -> bool {
    !device.is_metal()
}

/// What a GPU that shares the machine's memory works well within.
#[cfg(target_os = "macos")]
fn working_set(device: &Device) -> Option<Bytes> {
    match device {
        Device::Metal(device) => Some(Bytes(
            device.metal_device().recommended_max_working_set_size() as u64
        )),
        _ => None,
    }
}

#[cfg(not(target_os = "macos"))]
fn working_set(_device: &Device) -> Option<Bytes> {
    None
}
