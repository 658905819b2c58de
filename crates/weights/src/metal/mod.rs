//! Streaming of weights to an Apple GPU: from disk straight into the memory that the GPU computes in.
//!
//! CPU and GPU share their memory. A tensor is read into pages of ours, which a Metal buffer then shows
//! without a copy. Command buffers hold the buffers that they use until they have completed, and Metal calls
//! a deallocator when nobody holds a buffer any longer. That call is the signal that the pages can be filled
//! again, so that nothing has to wait for the whole GPU.
//!
//! candle's own buffers do not fit here. They are in a pool, which is swept only when somebody waits for the
//! GPU, and in the queue's residency set. Buffers outside of the set are made resident by Metal for the
//! command buffers that they are bound in.

mod buffer;
mod buffers;
mod mapping;
mod window;

use candle_core::MetalDevice;
use objc2::rc::autoreleasepool;

pub(crate) use buffers::MetalBuffers;

/// The bytes of the Metal buffers of this process, and of the pages that wait for the next streamed blocks.
pub(crate) fn allocated(device: &MetalDevice) -> u64 {
    /// Pages may change hands between the two readings, but not for long.
    const TRIES: usize = 10;
    let mut free = window::free_bytes();
    let mut buffers = 0;
    for _ in 0..TRIES {
        buffers = device.metal_device().current_allocated_size() as u64;
        let before = std::mem::replace(&mut free, window::free_bytes());
        if before == free {
            break;
        }
    }
    buffers + free
}

/// Waits for all queued work and drops the free buffers of candle's pool.
pub(crate) fn release(device: &MetalDevice) -> candle_core::Result<()> {
    autoreleasepool(|_| device.wait_until_completed())
}

/// Commits the work that is queued on `device` without waiting for it.
///
/// candle commits its command buffer only when somebody waits, or as soon as an encoder was asked for a number
/// of times, and has no call to do it earlier. Until then the buffers of a block would be held. So an encoder
/// is asked for that many times.
fn commit(device: &MetalDevice) -> candle_core::Result<()> {
    /// What candle reads too, and the number where it is not set.
    const VARIABLE: &str = "CANDLE_METAL_COMPUTE_PER_BUFFER";
    const DEFAULT: usize = 50;

    let set = std::env::var(VARIABLE).ok();
    let encoders = set.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT);
    // The command buffers and encoders that are made are autoreleased objects.
    autoreleasepool(|_| (0..=encoders).try_for_each(|_| device.command_encoder().map(drop)))
}
