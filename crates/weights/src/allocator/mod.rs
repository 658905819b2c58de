//! The global allocator: it counts allocated bytes and returns free memory to the system.
//!
//! It is part of this crate because it needs `unsafe`, which few crates allow.

#[cfg(target_os = "linux")]
mod pieces;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static CURRENT: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// The system allocator with a count of allocated bytes. A binary installs it so:
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;
/// ```
///
/// Otherwise the counts stay zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

/// The bytes that are allocated now.
pub fn allocated_bytes() -> u64 {
    CURRENT.load(Ordering::Relaxed)
}

/// The peak of allocated bytes since the start of the program or the last call of [`restart_allocated_peak`].
pub fn allocated_peak() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// Resets the peak to the bytes that are allocated now.
pub fn restart_allocated_peak() {
    PEAK.store(allocated_bytes(), Ordering::Relaxed);
}

/// Returns the peak of allocated bytes and resets it in one step, so that no allocation falls between two
/// calls.
pub fn take_allocated_peak() -> u64 {
    PEAK.swap(allocated_bytes(), Ordering::Relaxed)
}

/// Counts an allocation and shrinks the cache of free ranges accordingly.
fn count(bytes: usize) {
    let bytes = bytes as u64;
    let now = CURRENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    if bytes >= MIDDLING {
        pieces::make_room(now);
    }
}

/// Smaller allocations do not shrink the cache one by one.
#[cfg(target_os = "linux")]
const MIDDLING: u64 = 16 << 10;

fn discount(bytes: usize) {
    CURRENT.fetch_sub(bytes as u64, Ordering::Relaxed);
}

/// Returns `pointer`, and takes the count back if the allocation failed.
fn counted(bytes: usize, pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        discount(bytes);
    }
    pointer
}

thread_local! {
    /// Whether large zeros of this thread are fresh pages.
    static UNTOUCHED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `allocate`, whose large allocations of zeros nobody reads or writes: they are fresh pages, which take neither time
/// nor memory before they are touched. Other zeros may be used pages, which are cleared.
pub(crate) fn with_untouched_zeros<T>(allocate: impl FnOnce() -> T) -> T {
    /// Ends it, also after a panic.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            UNTOUCHED.set(false);
        }
    }
    UNTOUCHED.set(true);
    let _end = End;
    allocate()
}

/// Maps and counts a large piece of fresh pages.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> *mut u8 {
    count(bytes);
    counted(bytes, pieces::map(bytes))
}

/// Allocates and counts a large piece. The second value says whether it is all zeros.
#[cfg(target_os = "linux")]
fn take(bytes: usize) -> (*mut u8, bool) {
    // Cached ranges are reused before the cache is trimmed.
    if let Some(pointer) = pieces::take(bytes) {
        count(bytes);
        return (pointer, false);
    }
    (map(bytes), true)
}

/// Allocations of this size or more are mapped pages, not memory of the system allocator.
#[cfg(target_os = "linux")]
const LARGE: usize = 128 << 10;

/// Whether a piece is one of [`pieces`].
#[cfg(target_os = "linux")]
fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= 4 << 10
}

// SAFETY: pieces come from `System` or from `pieces`, which of the two is decided by their layout, by which
// they go back too. Those of `pieces` are pages that are mapped for them alone, and aligned as these are. The
// counts touch nothing that was allocated.
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
            if UNTOUCHED.get() {
                return map(layout.size());
            }
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
        // While it moves, at most the larger of both is resident: large ones are mapped elsewhere, not
        // copied.
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
    /// A piece of the layout `new` with what the old one holds, which goes back; null where there is none,
    /// and then the old one stays as it is.
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

/// Limits glibc to one arena whose free end is returned to the system. It is called once, at the start of the
/// program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_heap_small() {
    /// Allocations of this size or more are mapped separately. Setting the threshold keeps glibc from raising
    /// it to 32 MB.
    const MAPPED: libc::c_int = 1 << 20;
    /// Otherwise every thread would leave a fragmented arena behind.
    const ARENAS: libc::c_int = 1;
    /// The free bytes at the end of the heap above which memory is returned to the system; half of them stay.
    /// With glibc's default of 128 KB, medium-sized tensors were returned and faulted in again, page by page.
    const FREE_AT_END: libc::c_int = 8 << 20;
    // SAFETY: mallopt takes two numbers and changes a setting of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_END);
        libc::mallopt(libc::M_TOP_PAD, FREE_AT_END / 2);
    }
}

/// Has no effect on this system.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_heap_small() {}

/// Returns free memory of the allocator to the system. `aggressive` keeps no reserve.
pub fn release_free_memory(aggressive: bool) {
    #[cfg(target_os = "linux")]
    pieces::give_all_back(allocated_bytes());
    release_heap(aggressive);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn release_heap(aggressive: bool) {
    /// The reserve of a gentle release, about what the next stage needs at its start.
    const RESERVE: usize = 16 << 20;
    // SAFETY: malloc_trim takes a number and touches nothing but the allocator's own free lists, under the
    // allocator's own locks.
    unsafe {
        libc::malloc_trim(if aggressive { 0 } else { RESERVE });
    }
}

/// Systems other than Linux with glibc return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn release_heap(_aggressive: bool) {}
