//! Figures of the memory of a device that has memory of its own.

/// A device's memory at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMemory {
    /// All memory of the device.
    pub total: u64,
    /// Memory that no process has allocated, as the driver reports it.
    pub free: u64,
    /// Memory of this process's tensors.
    pub used: u64,
    /// The peak of `used` since the process began, or since
    /// [`restart_device_peak`](crate::restart_device_peak).
    pub used_peak: u64,
    /// Memory that this process's pool holds for tensors.
    pub held: u64,
    /// The peak of `held`, counted as `used_peak` is.
    pub held_peak: u64,
    /// Memory that the driver takes for this process beside the pool: its context, the code of kernels,
    /// cuBLAS workspaces. It grows when kernels are first used.
    pub driver: u64,
    /// The value of `driver` when the device was opened.
    pub driver_at_first: u64,
}
