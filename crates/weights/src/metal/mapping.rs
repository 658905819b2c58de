//! Memory in whole pages, as Metal buffers need it to show it without a copy.

use std::io;
use std::ptr::{self, NonNull};

/// The bytes of a page of Apple Silicon. The pages of Intel Macs divide it.
pub(super) const PAGE: usize = 16 << 10;

/// Anonymous memory from the system. It is zeros at first.
///
/// Metal shows only memory that was mapped, none of the heap.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the mapping alone, wherever that is.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}

impl Mapping {
    /// The pages that `bytes` take, at least one.
    pub(super) fn length_of(bytes: usize) -> usize {
        bytes.max(1).next_multiple_of(PAGE)
    }

    /// Maps `length` bytes, which are whole pages.
    ///
    /// # Errors
    /// The system has no memory left.
    #[allow(unsafe_code)]
    pub(super) fn new(length: usize) -> io::Result<Self> {
        // One page more, because the system's pages may be smaller and begin between two of these.
        let whole = length
            .checked_add(PAGE)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: without an address and a file the call takes no memory that is in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), whole, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast::<u8>();
        let before = start.align_offset(PAGE);
        // SAFETY: `before` is less than the page that was added.
        let (start, end) = unsafe { (start.add(before), start.add(before + length)) };
        // SAFETY: both are parts of the new mapping that nobody has seen.
        unsafe {
            unmap(start.sub(before), before);
            unmap(end, PAGE - before);
        }
        let start = NonNull::new(start).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { start, length })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    #[allow(unsafe_code)]
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is mapped and initialised by the system, and borrowed as long as the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Default for Mapping {
    /// No memory.
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            length: 0,
        }
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory once its owner is dropped.
        unsafe { unmap(self.start.as_ptr(), self.length) }
    }
}

/// Returns `length` bytes from `start` on to the system.
///
/// # Safety
/// They are mapped, and nothing refers to them.
#[allow(unsafe_code)]
unsafe fn unmap(start: *mut u8, length: usize) {
    if length > 0 {
        // SAFETY: the caller's. The call fails only for a range that is none.
        unsafe { libc::munmap(start.cast(), length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_pages_of_zeros() {
        assert_eq!(
            [0, 1, PAGE, PAGE + 1].map(Mapping::length_of),
            [1, 1, 1, 2].map(|pages| pages * PAGE)
        );
        let mut mappings: Vec<Mapping> = (1..20).map(|pages| Mapping::new(pages * PAGE).unwrap()).collect();
        for mapping in &mut mappings {
            assert_eq!(mapping.start().as_ptr() as usize % PAGE, 0);
            assert!(mapping.bytes().iter().all(|&byte| byte == 0));
            mapping.bytes().fill(1);
        }
        drop(mappings);
        assert!(Mapping::new(usize::MAX - PAGE + 1).is_err() && Mapping::new(1 << 62).is_err());
    }
}
