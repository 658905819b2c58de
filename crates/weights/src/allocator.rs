//! The process's allocator: what is allocated is counted, and what is free goes back to the system.
//!
//! This lives here because it is among the few places of the program that cannot do without `unsafe`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static CURRENT: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// The system's allocator with a count of the bytes that are allocated. A binary makes it its own:
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;
/// ```
///
/// Without that the counts stay zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

/// Bytes that are allocated now.
pub fn allocated_bytes() -> u64 {
    CURRENT.load(Ordering::Relaxed)
}

/// The most bytes that were allocated at a time since the program began, or since the last call of
/// [`restart_allocated_peak`].
pub fn allocated_peak() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// Begins to look for a new peak, from what is allocated now.
pub fn restart_allocated_peak() {
    PEAK.store(allocated_bytes(), Ordering::Relaxed);
}

/// The most bytes that were allocated at a time since the last call, or since the last one of
/// [`restart_allocated_peak`]; it begins to look for a new peak, so that no allocation falls between two calls.
pub fn take_allocated_peak() -> u64 {
    PEAK.swap(allocated_bytes(), Ordering::Relaxed)
}

fn count(bytes: usize) {
    let bytes = bytes as u64;
    let now = CURRENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

fn discount(bytes: usize) {
    CURRENT.fetch_sub(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came, whose contract is then ours; the counts touch
// nothing that was allocated.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the ones that the system's allocator asks for.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            count(layout.size());
            take_large_pages(pointer, layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            count(layout.size());
            take_large_pages(pointer, layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) };
        discount(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        if !moved.is_null() {
            // While it moves, at most the larger of both is resident: large ones are remapped, not copied.
            discount(layout.size());
            count(new_size);
        }
        moved
    }
}

/// Lets every large piece of memory go back to the system as soon as it is freed, so that what is resident is
/// what is in use, and has all threads take small ones from one place. To be called once, at the start of a program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn return_large_pieces_at_once() {
    /// Pieces from this size on are mapped on their own. glibc would raise its threshold to 32 MB as such pieces
    /// come and go; setting it stops that.
    const LARGE: libc::c_int = 1 << 20;
    /// Every thread that comes and goes would leave an arena behind with holes of its own.
    const ARENAS: libc::c_int = 1;
    /// So much at the end of the heap may be free before it goes back to the system, and half of it then stays: with glibc's
    /// own 128 KB every tensor of middling size was given back and had anew, page by page.
    const FREE_AT_END: libc::c_int = 8 << 20;
    // SAFETY: mallopt takes two numbers and changes a setting of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_END);
        libc::mallopt(libc::M_TOP_PAD, FREE_AT_END / 2);
    }
}

/// Lets every large piece of memory go back to the system as soon as it is freed. This system does so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_large_pieces_at_once() {}

/// Has the system give a large piece pages of 2 MB instead of 4 KB where it can: what is written to for the first time is then
/// had two to three times as fast, and processors look addresses up less often. No more becomes resident than was asked
/// for, since only whole large pages inside of the piece are taken.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn take_large_pages(pointer: *mut u8, bytes: usize) {
    const LARGE_PAGE: usize = 2 << 20;
    const PAGE: usize = 4 << 10;
    if bytes >= LARGE_PAGE {
        let before = pointer.align_offset(PAGE);
        // SAFETY: the range lies inside of the piece that was just allocated, and the advice changes none of its bytes. Where
        // it is not taken (other sizes of pages, say) nothing is lost.
        unsafe {
            libc::madvise(
                pointer.wrapping_add(before).cast(),
                bytes.saturating_sub(before),
                libc::MADV_HUGEPAGE,
            );
        }
    }
}

/// This system chooses the size of pages by itself.
#[cfg(not(target_os = "linux"))]
fn take_large_pages(_pointer: *mut u8, _bytes: usize) {}

/// Asks the allocator to give pages that nothing uses back to the system, which it otherwise keeps for
/// later. Other systems than Linux with glibc do so by themselves. `aggressive` keeps no reserve.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn release_free_memory(aggressive: bool) {
    /// What a gentle release leaves with the allocator: about what the next stage begins with.
    const RESERVE: usize = 16 << 20;
    // SAFETY: malloc_trim takes a number and touches nothing but the allocator's own free lists, under the
    // allocator's own locks.
    unsafe {
        libc::malloc_trim(if aggressive { 0 } else { RESERVE });
    }
}

/// Asks the allocator to give pages that nothing uses back to the system. This system does so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release_free_memory(_aggressive: bool) {}
