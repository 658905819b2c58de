//! A buffer: counted memory of the host.

use crate::standin::{count, settings};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is called with the memory of others when no buffer shows it any longer.
pub(crate) type Deallocator = dyn Fn(NonNull<c_void>, usize);

/// Behind each buffer lie so many bytes that no kernel may write.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xA5;

pub(crate) struct Memory {
    /// No other has or had it.
    pub(crate) id: u64,
    at: NonNull<u8>,
    len: usize,
    private: bool,
    owner: Owner,
}
enum Owner {
    Buffer,
    Other(Option<Arc<Deallocator>>),
}
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(len: usize, private: bool) -> Option<Self> {
        if !is_granted(len) {
            return None;
        }
        // Mapped memory takes no room before it is touched: what a dry run rests on.
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len + GUARD, protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "the host has no memory for a buffer of {len} bytes");
        let at = NonNull::new(at.cast::<u8>())?;
        if !settings().dry {
            unsafe {
                // What nobody wrote is not a number in any type of float.
                at.write_bytes(0xFF, len);
                at.add(len).write_bytes(GUARD_BYTE, GUARD);
            }
        }
        Some(Self { id: next_id(), at, len, private, owner: Owner::Buffer })
    }
    /// A buffer that shows memory of others, whole pages of it.
    pub(crate) fn of_others(at: NonNull<c_void>, len: usize, deallocator: Option<Arc<Deallocator>>) -> Option<Self> {
        const PAGE: usize = 16 << 10;
        assert!(at.as_ptr().addr() % PAGE == 0 && len % PAGE == 0, "a buffer shows {len} bytes at {at:?}, which are not whole pages");
        if !is_granted(len) {
            return None;
        }
        if settings().dry {
            // Buffers read as zeros and take no room, like those of the device.
            unsafe { libc::madvise(at.as_ptr(), len, libc::MADV_DONTNEED) };
        }
        Some(Self { id: next_id(), at: at.cast(), len, private: false, owner: Owner::Other(deallocator) })
    }
    pub(crate) fn upload(&self, bytes: NonNull<c_void>) {
        count(|counts| counts.uploaded += self.len as u64);
        // Little is what shapes and scalars are made of.
        if !settings().dry || self.len <= 4096 {
            unsafe { self.at.copy_from_nonoverlapping(bytes.cast(), self.len) };
        }
    }
    pub(crate) fn at(&self) -> NonNull<c_void> {
        self.at.cast()
    }
    pub(crate) fn len(&self) -> usize {
        self.len
    }
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }
    /// Whether nobody wrote beyond its end.
    pub(crate) fn is_sound(&self) -> bool {
        settings().dry || matches!(self.owner, Owner::Other(_)) || unsafe { std::slice::from_raw_parts(self.at.as_ptr().add(self.len), GUARD) } == [GUARD_BYTE; GUARD]
    }
}
impl Drop for Memory {
    fn drop(&mut self) {
        count(|counts| counts.freed(self.len as u64));
        match &self.owner {
            Owner::Buffer => unsafe {
                libc::munmap(self.at.as_ptr().cast(), self.len + GUARD);
            },
            Owner::Other(Some(deallocator)) => deallocator(self.at(), self.len),
            Owner::Other(None) => {}
        }
    }
}

fn next_id() -> u64 {
    static IDS: AtomicU64 = AtomicU64::new(0);
    IDS.fetch_add(1, Relaxed)
}
/// Whether the device has so many bytes left, which are then counted.
fn is_granted(len: usize) -> bool {
    len > 0
        && len <= settings().longest_buffer
        && count(|counts| {
            if settings().limit.is_some_and(|limit| counts.live + len as u64 > limit) {
                counts.refused += 1;
                return false;
            }
            counts.made(len as u64);
            true
        })
}
