//! The memory that operations keep on a device for their next results.

use candle_core::Device;

use crate::Result;
use crate::capabilities::Backend;

/// Limits all that `device` holds, as `held` tells, to `bytes` from now on. Before more is allocated for a result,
/// memory of dropped results is released. Only Apple GPUs keep such memory in this crate.
pub fn limit_results(device: &Device, bytes: u64, held: fn(&Device) -> u64) {
    match Backend::of(device) {
        #[cfg(metal)]
        Backend::Metal => {
            if let Ok(device) = device.as_metal_device() {
                crate::metal::buffers::limit(device, bytes, held);
            }
        }
        _ => {
            let _ = (bytes, held);
        }
    }
}

/// Waits for `device` and releases the memory of dropped results.
///
/// # Errors
/// The device fails, possibly in work that was queued before.
pub fn release_results(device: &Device) -> Result<()> {
    match Backend::of(device) {
        #[cfg(metal)]
        Backend::Metal => crate::metal::buffers::release(device.as_metal_device()?),
        _ => Ok(()),
    }
}
