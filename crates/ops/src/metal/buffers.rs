//! The buffers of results, which are used again once their tensors were dropped.
//!
//! A buffer belongs to a tensor as long as somebody besides the pool holds it. Kernels of one queue run in
//! order, so that a buffer of a dropped tensor can be written at once by what is queued next. A buffer has
//! the bytes of its tensor, rounded up to pages, and is given to tensors of that many bytes only.
//!
//! Within a limit ([`limit`]), free buffers are released before a new one is made that would exceed it. Metal
//! frees a released buffer when the commands that use it have completed, which is waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::metal_backend::DeviceId;
use candle_core::{Error, MetalDevice};
use candle_metal_kernels::metal::{Buffer, MTLResourceOptions};

use crate::Result;

/// The bytes that Metal rounds large buffers up to.
const PAGE: usize = 16 << 10;
/// What smaller buffers are rounded up to.
const SMALL: usize = 256;

static POOLS: Mutex<Vec<(DeviceId, Pool)>> = Mutex::new(Vec::new());

/// The buffers of a device.
#[derive(Default)]
struct Pool {
    by_length: HashMap<usize, Vec<Arc<Buffer>>>,
    bytes: u64,
    limit: Option<u64>,
}

impl Pool {
    fn take(&mut self, length: usize) -> Option<Arc<Buffer>> {
        let buffers = self.by_length.get(&length)?;
        buffers.iter().find(|buffer| is_free(buffer)).cloned()
    }

    /// Whether one more buffer of `length` bytes exceeds the limit.
    fn is_full(&self, length: usize) -> bool {
        self.limit.is_some_and(|limit| self.bytes + length as u64 > limit)
    }

    /// Releases free buffers, the longest first, until `length` more bytes are within the limit. Whether any
    /// was released.
    fn release(&mut self, length: usize) -> bool {
        let mut lengths: Vec<usize> = self.by_length.keys().copied().collect();
        lengths.sort_unstable();
        let before = self.bytes;
        while let Some(longest) = lengths.pop()
            && self.is_full(length)
        {
            self.release_of(longest);
        }
        self.bytes < before
    }

    fn release_all(&mut self) {
        let lengths: Vec<usize> = self.by_length.keys().copied().collect();
        for length in lengths {
            self.release_of(length);
        }
    }

    fn release_of(&mut self, length: usize) {
        let Some(buffers) = self.by_length.get_mut(&length) else {
            return;
        };
        let before = buffers.len();
        buffers.retain(|buffer| !is_free(buffer));
        self.bytes -= ((before - buffers.len()) * length) as u64;
        if buffers.is_empty() {
            self.by_length.remove(&length);
        }
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
    let found = with_pool(device, |pool| {
        let found = pool.take(length);
        let released = found.is_none() && pool.is_full(length) && pool.release(length);
        (found, released)
    });
    match found {
        (Some(buffer), _) => return Ok(buffer),
        (None, true) => device.wait_until_completed()?,
        (None, false) => {}
    }
    let make = || {
        device
            .device()
            .new_buffer(length, MTLResourceOptions::StorageModePrivate | UNTRACKED)
    };
    let buffer = make().or_else(|_| {
        // Other sizes may lie free.
        with_pool(device, Pool::release_all);
        device.wait_until_completed()?;
        make().map_err(Error::wrap)
    })?;
    let buffer = Arc::new(buffer);
    with_pool(device, |pool| {
        pool.by_length.entry(length).or_default().push(buffer.clone());
        pool.bytes += length as u64;
    });
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

/// Limits the buffers of results to `bytes` from now on, or removes the limit. More are made only for tensors
/// that are alive together.
pub(crate) fn limit(device: &MetalDevice, bytes: Option<u64>) {
    with_pool(device, |pool| pool.limit = bytes);
}

/// Releases the buffers of dropped tensors, after the commands that use them have completed.
///
/// # Errors
/// A command failed.
pub(crate) fn release(device: &MetalDevice) -> Result<()> {
    with_pool(device, Pool::release_all);
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
