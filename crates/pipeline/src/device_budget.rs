//! The budget of a GPU with its own memory, and of the host memory beside it.

use candle_core::Device;
use sd_memory::{Allowance, Bytes, DeviceInfo, Limit, gpu_wired_limit, machine_margin, shared_gpu_limit};
use sd_ops::{Capabilities, Memory};
use sd_weights::{
    DeviceMemory, HostMemory, allocated_unified_memory, bound_device_memory, device_memory,
    recommended_working_set, release_device_memory,
};

use crate::Result;

/// What a GPU's driver allocates for the process after the device is opened: kernel code, on first use. On an
/// H200 it was 2 MB with every model.
const LATER: u64 = 32 << 20;
/// Host memory of the process beside a GPU, without the weights that are cached there.
const PROCESS: u64 = 768 << 20;

/// Device memory of a run before its first tensor, with the scratch memory of operations that the networks'
/// footprints do not count; None if the device has no memory of its own.
pub(crate) fn process(device: &Device) -> Option<u64> {
    let memory = device_memory(device).ok().flatten()?;
    Some(driver(&memory) + sd_ops::scratch_of_gpu(device))
}

/// Fragmentation on `device` while activations of `bytes` are allocated and freed: as much again at the most,
/// on a device with its own memory. With SDXL at 1024x1024, 0.7 GB of activations took 1.3 GB, and 1.4 GB in
/// 32 bits took 2.2 GB.
pub(crate) fn gaps(device: &Device, bytes: u64) -> u64 {
    match Capabilities::of(device).memory {
        Memory::Discrete => bytes,
        Memory::Host | Memory::Unified => 0,
    }
}

/// Device memory of the driver for the process, at the end of the run.
fn driver(memory: &DeviceMemory) -> u64 {
    memory.driver.max(memory.driver_at_first + LATER)
}

/// The memory of `device` that the process may use, what it has included; None if the device has no memory of
/// its own.
///
/// # Errors
/// The device fails.
pub(crate) fn available(device: &Device) -> Result<Option<Bytes>> {
    let memory = device_memory(device)?;
    Ok(memory.map(|memory| Bytes(memory.free + memory.held + memory.driver)))
}

/// Limits the process to `bytes` of `device`. The driver's share is subtracted from what is left for tensors, or
/// where the device shares the memory of the machine, what the `process` itself takes.
///
/// # Errors
/// The device fails.
pub(crate) fn bound(device: &Device, bytes: Bytes, process: u64) -> Result<()> {
    if Capabilities::of(device).memory == Memory::Unified {
        let held = |device: &Device| allocated_unified_memory(device).unwrap_or_default();
        sd_ops::limit_results(device, bytes.0.saturating_sub(process), held);
    }
    if let Some(memory) = device_memory(device)? {
        bound_device_memory(device, Some(bytes.0.saturating_sub(driver(&memory))))?;
    }
    Ok(())
}

/// Waits for `device` and releases its cached memory.
///
/// # Errors
/// The device fails, or failed in work that was queued before. No later call says so again.
pub(crate) fn release(device: &Device) -> Result<()> {
    sd_ops::release_results(device)?;
    Ok(release_device_memory(device)?)
}

/// The memory in use on `device`, if it has memory of its own.
pub(crate) fn info(device: &Device) -> Option<DeviceInfo> {
    let memory = device_memory(device).ok().flatten()?;
    Some(DeviceInfo {
        used: Bytes(memory.total - memory.free),
        total: Bytes(memory.total),
    })
}

/// The peak of the run on `device`, if it has memory of its own.
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

/// The host memory in which weights may be cached beside `device`: `wanted`, or else what is available less a
/// margin.
pub(crate) fn host_memory(device: &Device, wanted: Option<Bytes>, default: Bytes) -> HostMemory {
    match Capabilities::of(device).memory {
        Memory::Discrete => HostMemory::up_to(wanted.unwrap_or(default).0.saturating_sub(PROCESS)),
        Memory::Host | Memory::Unified => HostMemory::default(),
    }
}

/// The default budget of a run on `device`, beside a host that allows `host`, and the limit that it comes
/// from.
///
/// # Errors
/// The device fails.
pub(crate) fn default(device: &Device, host: &Allowance) -> Result<(Bytes, Limit)> {
    if let Some(available) = available(device)? {
        return Ok((less_margin(available), Limit::Device));
    }
    let host = host.clone();
    let allowance = match recommended_working_set(device).map(Bytes) {
        Some(working_set) => host.within_gpu(shared_gpu_limit(working_set, gpu_wired_limit())),
        None => host,
    };
    Ok((allowance.budget(), allowance.limit))
}

/// What is `available`, less a margin for other processes.
pub(crate) fn less_margin(available: Bytes) -> Bytes {
    available.saturating_sub(machine_margin(available))
}
