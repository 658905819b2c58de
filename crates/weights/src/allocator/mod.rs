//! The process's allocator: what is allocated is counted, and what is free goes back to the system.
//!
//! This lives here because it is among the few places of the program that cannot do without `unsafe`.

#[cfg(target_os = "linux")]
mod pieces;
#[cfg(all(test, target_os = "linux"))]
mod tests;

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

/// Counts a piece, for which what is kept makes room.
fn count(bytes: usize) {
    let bytes = bytes as u64;
    let now = CURRENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    if bytes >= MIDDLING {
        pieces::make_room(now);
    }
}

/// Smaller pieces are not looked at one by one.
#[cfg(target_os = "linux")]
const MIDDLING: u64 = 16 << 10;

fn discount(bytes: usize) {
    CURRENT.fetch_sub(bytes as u64, Ordering::Relaxed);
}

/// `pointer` to a piece that was counted, which is taken back where there is none.
fn counted(bytes: usize, pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        discount(bytes);
    }
    pointer
}

/// A large piece, counted, and whether all of it is zero.
#[cfg(target_os = "linux")]
fn take(bytes: usize) -> (*mut u8, bool) {
    // What is kept is had first: to make room for it would give it away.
    if let Some(pointer) = pieces::take(bytes) {
        count(bytes);
        return (pointer, false);
    }
    count(bytes);
    (counted(bytes, pieces::map(bytes)), true)
}

/// Pieces from this size on are not the system's allocator's.
#[cfg(target_os = "linux")]
const LARGE: usize = 128 << 10;

/// Whether a piece is one of [`pieces`].
#[cfg(target_os = "linux")]
fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= 4 << 10
}

// SAFETY: pieces come from `System` or from `pieces`, which of the two is decided by their layout, by which they go back
// too. Those of `pieces` are pages that are mapped for them alone, and aligned as these are. The counts touch nothing that was
// allocated.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(target_os = "linux")]
        if is_large(layout) {
            return take(layout.size()).0;
        }
        count(layout.size());
        // SAFETY: the caller's promises are the ones that the system's allocator asks for.
        counted(layout.size(), unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        #[cfg(target_os = "linux")]
        if is_large(layout) {
            let (pointer, is_zero) = take(layout.size());
            if !pointer.is_null() && !is_zero {
                // SAFETY: the piece has so many bytes.
                unsafe { pointer.write_bytes(0, layout.size()) };
            }
            return pointer;
        }
        count(layout.size());
        // SAFETY: as in `alloc`.
        counted(layout.size(), unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        discount(layout.size());
        #[cfg(target_os = "linux")]
        if is_large(layout) {
            // SAFETY: the caller gives a piece of this layout back.
            return unsafe { pieces::give(pointer, layout.size()) };
        }
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that the new size, rounded up to the alignment, is none too large.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        #[cfg(target_os = "linux")]
        let kinds = (is_large(layout), is_large(new));
        #[cfg(not(target_os = "linux"))]
        let kinds = (false, false);
        if kinds.0 != kinds.1 {
            // SAFETY: the caller vouches for the piece.
            return unsafe { self.moved(pointer, layout, new) };
        }
        // While it moves, at most the larger of both is resident: large ones are mapped elsewhere, not copied.
        discount(layout.size());
        count(new_size);
        let resized = match kinds {
            #[cfg(target_os = "linux")]
            // SAFETY: the piece was taken with so many bytes.
            (true, _) => unsafe { pieces::resize(pointer, layout.size(), new_size) },
            // SAFETY: as in `alloc`.
            _ => Some(unsafe { System.realloc(pointer, layout, new_size) }),
        };
        if resized.is_none_or(|resized| resized.is_null()) {
            discount(new_size);
            count(layout.size());
        }
        // SAFETY: as above; a piece that is not resized is as it was.
        resized.unwrap_or_else(|| unsafe { self.moved(pointer, layout, new) })
    }
}

impl CountingAllocator {
    /// A piece of the layout `new` with what the old one holds, which goes back; null where there is none, and then the old
    /// one stays as it is.
    ///
    /// # Safety
    /// The piece has this layout and is the caller's.
    #[allow(unsafe_code)]
    unsafe fn moved(&self, pointer: *mut u8, layout: Layout, new: Layout) -> *mut u8 {
        // SAFETY: both pieces have as many bytes as are copied; the caller gives the old one back.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(new.size()));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Has all threads take small pieces from one place, whose end goes back to the system when it is free. To be called once, at the
/// start of a program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_heap_small() {
    /// Pieces from this size on are mapped on their own. glibc would raise its threshold to 32 MB as such pieces
    /// come and go; setting it stops that.
    const MAPPED: libc::c_int = 1 << 20;
    /// Every thread that comes and goes would leave an arena behind with holes of its own.
    const ARENAS: libc::c_int = 1;
    /// So much at the end of the heap may be free before it goes back to the system, and half of it then stays: with glibc's
    /// own 128 KB every tensor of middling size was given back and had anew, page by page.
    const FREE_AT_END: libc::c_int = 8 << 20;
    // SAFETY: mallopt takes two numbers and changes a setting of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_END);
        libc::mallopt(libc::M_TOP_PAD, FREE_AT_END / 2);
    }
}

/// Has all threads take small pieces from one place. This system does as it likes.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_heap_small() {}

/// Asks the allocator to give pages that nothing uses back to the system, which it otherwise keeps for
/// later. `aggressive` keeps no reserve.
pub fn release_free_memory(aggressive: bool) {
    #[cfg(target_os = "linux")]
    pieces::give_all_back(allocated_bytes());
    release_heap(aggressive);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn release_heap(aggressive: bool) {
    /// What a gentle release leaves with the allocator: about what the next stage begins with.
    const RESERVE: usize = 16 << 20;
    // SAFETY: malloc_trim takes a number and touches nothing but the allocator's own free lists, under the
    // allocator's own locks.
    unsafe {
        libc::malloc_trim(if aggressive { 0 } else { RESERVE });
    }
}

/// Other systems than Linux with glibc do so by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn release_heap(_aggressive: bool) {}
