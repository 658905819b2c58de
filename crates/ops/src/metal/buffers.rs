//! The buffers of results, which are used again once their tensors were dropped.
//!
//! A buffer belongs to a tensor as long as somebody besides the pool holds it. Kernels of one queue run in
//! order, so that the buffer of a dropped tensor can be written at once by what is queued next. A buffer has
//! the bytes of its tensor, rounded up to pages, and is given to tensors of that many bytes only.
//!
//! A network goes through several sizes of results. Buffers that were not used for a while are released when
//! one of another size is made, and so are others if the device would exceed its limit ([`limit`]). Metal
//! frees a released buffer when the commands that use it have completed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::metal_backend::DeviceId;
use candle_core::{Device, Error, MetalDevice};
use candle_metal_kernels::metal::{Buffer, MTLResourceOptions};

use crate::Result;

/// The bytes that Metal rounds large buffers up to.
const PAGE: usize = 16 << 10;
/// What smaller buffers are rounded up to.
const SMALL: usize = 256;

/// Results after which a buffer that none of them used is released: more than a block of a network has.
const KEPT_FOR: u64 = 128;

static POOLS: Mutex<Vec<(DeviceId, Pool)>> = Mutex::new(Vec::new());

/// The buffers of a device.
#[derive(Default)]
struct Pool {
    by_length: HashMap<usize, Vec<Held>>,
    /// Results so far.
    results: u64,
    limit: Option<Limit>,
}

/// The bytes that a device may hold, and the function that tells how many it holds.
struct Limit {
    bytes: u64,
    held: fn(&Device) -> u64,
}

/// A buffer and the number of the last result that it was given to.
struct Held {
    buffer: Arc<Buffer>,
    last_result: u64,
}

impl Pool {
    /// A free buffer for the next result.
    fn take(&mut self, length: usize) -> Option<Arc<Buffer>> {
        self.results += 1;
        let held = self
            .by_length
            .get_mut(&length)?
            .iter_mut()
            .find(|held| is_free(&held.buffer))?;
        held.last_result = self.results;
        Some(held.buffer.clone())
    }

    fn add(&mut self, length: usize, buffer: Arc<Buffer>) {
        self.by_length.entry(length).or_default().push(Held {
            buffer,
            last_result: self.results,
        });
    }

    /// Releases free buffers that were not used for a while, and others, the ones used last at the end, until
    /// `excess` bytes are released.
    fn release(&mut self, excess: u64) {
        let mut free: Vec<(u64, usize)> = self
            .by_length
            .iter()
            .flat_map(|(&length, buffers)| buffers.iter().map(move |held| (held, length)))
            .filter(|(held, _)| is_free(&held.buffer))
            .map(|(held, length)| (held.last_result, length))
            .collect();
        free.sort_unstable();
        let (mut released, mut until) = (0, None);
        for (last_result, length) in free {
            if released >= excess && last_result + KEPT_FOR >= self.results {
                break;
            }
            released += length as u64;
            until = Some(last_result);
        }
        let Some(until) = until else { return };
        self.by_length.retain(|_, buffers| {
            buffers.retain(|held| held.last_result > until || !is_free(&held.buffer));
            !buffers.is_empty()
        });
    }
}

/// Whether the pool alone holds a buffer: nobody else can begin to, as the pool is locked.
fn is_free(buffer: &Arc<Buffer>) -> bool {
    Arc::strong_count(buffer) == 1
}

/// A buffer of at least `bytes` bytes, whose contents are undefined.
///
/// # Errors
/// The device has no room.
pub(super) fn allocate(device: &MetalDevice, bytes: usize) -> Result<Arc<Buffer>> {
    let length = rounded(bytes);
    let found = with_pool(device, |pool| match pool.take(length) {
        Some(buffer) => Ok(buffer),
        None => {
            let excess = pool.limit.as_ref().map_or(0, |limit| {
                ((limit.held)(&Device::Metal(device.clone())) + length as u64).saturating_sub(limit.bytes)
            });
            pool.release(excess);
            Err(excess > 0)
        }
    });
    match found {
        Ok(buffer) => return Ok(buffer),
        Err(true) => device.wait_until_completed()?,
        Err(false) => {}
    }
    let make = || {
        device
            .device()
            .new_buffer(length, MTLResourceOptions::StorageModePrivate | UNTRACKED)
    };
    let buffer = make().or_else(|_| {
        with_pool(device, |pool| pool.release(u64::MAX));
        device.wait_until_completed()?;
        make().map_err(Error::wrap)
    })?;
    let buffer = Arc::new(buffer);
    with_pool(device, |pool| pool.add(length, buffer.clone()));
    Ok(buffer)
}

/// candle orders the kernels that use a buffer.
const UNTRACKED: MTLResourceOptions = MTLResourceOptions::HazardTrackingModeUntracked;

/// The bytes of a buffer for a tensor of `bytes` bytes.
pub(crate) const fn rounded(bytes: usize) -> usize {
    let step = if bytes < PAGE { SMALL } else { PAGE };
    let bytes = if bytes == 0 { 1 } else { bytes };
    bytes.next_multiple_of(step)
}

/// Limits what the device holds, as `held` tells, to `bytes` from now on: before more is allocated for a result,
/// free buffers are released. What is in use exceeds it where it must.
pub(crate) fn limit(device: &MetalDevice, bytes: u64, held: fn(&Device) -> u64) {
    with_pool(device, |pool| pool.limit = Some(Limit { bytes, held }));
}

/// Releases the buffers of dropped tensors, after the commands that use them have completed.
///
/// # Errors
/// A command failed.
pub(crate) fn release(device: &MetalDevice) -> Result<()> {
    with_pool(device, |pool| pool.release(u64::MAX));
    device.wait_until_completed()
}

fn with_pool<R>(device: &MetalDevice, run: impl FnOnce(&mut Pool) -> R) -> R {
    // A panic leaves a pool as it was between two changes.
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let index = match pools.iter().position(|(id, _)| *id == device.id()) {
        Some(index) => index,
        None => {
            pools.push((device.id(), Pool::default()));
            pools.len() - 1
        }
    };
    run(&mut pools[index].1)
}
