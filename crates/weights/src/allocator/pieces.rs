//! A cache of large memory ranges, which are mapped from the system and reused.
//!
//! The kernel zeroes fresh pages at their first access, which takes longer than most operations on them.
//! Reused pages are often in CPU caches. So freed ranges are cached, up to about the peak of memory that was
//! in use before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A multiple of the page size on every supported CPU.
const PAGE: usize = if cfg!(target_arch = "x86_64") {
    4 << 10
} else {
    64 << 10
};
/// The size of a huge page.
const LARGE_PAGE: usize = 2 << 20;
/// The maximum number of cached ranges. More are rarely free, because neighbours are merged.
const MOST: usize = 512;

/// Bytes that may be cached beyond the peak, for ranges that are too small to be reused at once. Without them
/// such ranges are unmapped, and fresh pages must be zeroed.
pub(super) const SPARE: u64 = 2 << 20;

/// The cached bytes.
static KEPT: AtomicU64 = AtomicU64::new(0);
/// The peak of bytes in use since [`give_all_back`].
static MOST_IN_USE: AtomicU64 = AtomicU64::new(0);

static FREE: Mutex<Free> = Mutex::new(Free {
    ranges: [Range { first: 0, bytes: 0 }; MOST],
    count: 0,
});

/// A range of free pages.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: usize,
    bytes: usize,
}

/// The cached ranges, sorted by address.
struct Free {
    ranges: [Range; MOST],
    count: usize,
}

/// Takes a cached piece of at least `bytes`, with arbitrary content.
pub(super) fn take(bytes: usize) -> Option<*mut u8> {
    if KEPT.load(Ordering::Relaxed) < bytes as u64 {
        return None;
    }
    free().take(pages(bytes)).map(|first| first as *mut u8)
}

/// Adds a piece to the cache.
///
/// # Safety
/// The piece has `bytes` bytes and is not in use.
#[allow(unsafe_code)]
pub(super) unsafe fn give(piece: *mut u8, bytes: usize) {
    let range = Range {
        first: piece as usize,
        bytes: pages(bytes),
    };
    if !free().give(range) {
        unmap(range);
    }
}

/// Resizes a piece, which may move it. Returns `None` and leaves the piece unchanged where the system
/// refuses.
///
/// The system refuses not only for lack of memory. Merged ranges may span several mappings, which cannot be
/// moved as one (`EFAULT`), and the number of mappings of a process is limited. The caller then allocates
/// another piece and copies.
///
/// # Safety
/// The piece has `bytes` bytes, and the end that a shrinking resize frees is not in use.
#[allow(unsafe_code)]
pub(super) unsafe fn resize(piece: *mut u8, bytes: usize, new: usize) -> Option<*mut u8> {
    let (had, wanted) = (pages(bytes), pages(new));
    if wanted <= had {
        if wanted < had {
            // SAFETY: the end belongs to the piece, and nobody uses it.
            unsafe { give(piece.add(wanted), had - wanted) };
        }
        return Some(piece);
    }
    // SAFETY: the pages were mapped for this piece alone.
    let moved = unsafe { libc::mremap(piece.cast(), had, wanted, libc::MREMAP_MAYMOVE) };
    (moved != libc::MAP_FAILED).then_some(moved.cast())
}

/// Shrinks the cache so that it and the bytes in use do not exceed the peak.
pub(super) fn make_room(in_use: u64) {
    let most = MOST_IN_USE.fetch_max(in_use, Ordering::Relaxed).max(in_use);
    if in_use + KEPT.load(Ordering::Relaxed) > most + SPARE {
        free().shrink_to((most + SPARE - in_use) as usize);
    }
}

/// Empties the cache and resets the peak.
pub(super) fn give_all_back(in_use: u64) {
    free().shrink_to(0);
    MOST_IN_USE.store(in_use, Ordering::Relaxed);
}

/// Locks the cache. Nothing panics or allocates while it is locked.
fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `bytes` rounded up to whole pages.
fn pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE)
}

impl Free {
    /// Takes the start of the smallest range that is large enough.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let enough = (0..self.count).filter(|&index| self.ranges[index].bytes >= bytes);
        let index = enough.min_by_key(|&index| self.ranges[index].bytes)?;
        let range = &mut self.ranges[index];
        let first = range.first;
        range.first += bytes;
        range.bytes -= bytes;
        if range.bytes == 0 {
            self.remove(index);
        }
        KEPT.fetch_sub(bytes as u64, Ordering::Relaxed);
        Some(first)
    }

    /// Adds a range and merges it with its neighbours. Returns false where the table is full.
    fn give(&mut self, range: Range) -> bool {
        let index = self.ranges[..self.count].partition_point(|other| other.first < range.first);
        let follows = index > 0 && self.ranges[index - 1].end() == range.first;
        let precedes = index < self.count && range.end() == self.ranges[index].first;
        match (follows, precedes) {
            (true, true) => {
                self.ranges[index - 1].bytes += range.bytes + self.ranges[index].bytes;
                self.remove(index);
            }
            (true, false) => self.ranges[index - 1].bytes += range.bytes,
            (false, true) => {
                self.ranges[index].first = range.first;
                self.ranges[index].bytes += range.bytes;
            }
            (false, false) if self.count < MOST => {
                self.ranges.copy_within(index..self.count, index + 1);
                self.ranges[index] = range;
                self.count += 1;
            }
            (false, false) => return false,
        }
        KEPT.fetch_add(range.bytes as u64, Ordering::Relaxed);
        true
    }

    /// Unmaps pages, of small ranges first, until at most `most` bytes are cached.
    fn shrink_to(&mut self, most: usize) {
        loop {
            let kept: usize = self.ranges[..self.count].iter().map(|range| range.bytes).sum();
            let Some(index) = (0..self.count).min_by_key(|&index| self.ranges[index].bytes) else {
                return;
            };
            if kept <= most {
                return;
            }
            let range = &mut self.ranges[index];
            let bytes = pages(kept - most).min(range.bytes);
            range.bytes -= bytes;
            let last = Range {
                first: range.end(),
                bytes,
            };
            if range.bytes == 0 {
                self.remove(index);
            }
            KEPT.fetch_sub(bytes as u64, Ordering::Relaxed);
            unmap(last);
        }
    }

    fn remove(&mut self, index: usize) {
        self.ranges.copy_within(index + 1..self.count, index);
        self.count -= 1;
    }
}

impl Range {
    fn end(&self) -> usize {
        self.first + self.bytes
    }
}

/// Maps a fresh, zeroed piece of at least `bytes`, aligned to a huge page if it is large. Returns null if the
/// system has no memory even after the cache was emptied. The cache may consist of ranges that are too small,
/// and counts towards `RLIMIT_AS`.
pub(super) fn map(bytes: usize) -> *mut u8 {
    let bytes = pages(bytes);
    let fresh = || map_on_large_pages(bytes).or_else(|| map_anywhere(bytes));
    let first = fresh().or_else(|| {
        free().shrink_to(0);
        fresh()
    });
    first.map_or(std::ptr::null_mut(), |first| first as *mut u8)
}

/// Maps fresh pages at any address.
#[allow(unsafe_code)]
fn map_anywhere(bytes: usize) -> Option<usize> {
    // SAFETY: fresh pages wherever there are some touch nothing that is.
    let first = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (first != libc::MAP_FAILED).then_some(first as usize)
}

/// Maps fresh pages aligned to a huge page, if there are enough for one.
///
/// The first access of huge pages is two to three times as fast, and they need fewer TLB entries. No more
/// memory becomes resident than was requested, because only whole huge pages are advised.
#[allow(unsafe_code)]
fn map_on_large_pages(bytes: usize) -> Option<usize> {
    if bytes < LARGE_PAGE {
        return None;
    }
    let all = bytes.checked_add(LARGE_PAGE)?;
    let first = map_anywhere(all)?;
    let aligned = first.next_multiple_of(LARGE_PAGE);
    unmap(Range {
        first,
        bytes: aligned - first,
    });
    unmap(Range {
        first: aligned + bytes,
        bytes: first + all - (aligned + bytes),
    });
    // SAFETY: the pages belong to this mapping, and the advice does not change their content. It may be
    // ignored.
    unsafe { libc::madvise(aligned as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    Some(aligned)
}

/// Unmaps free pages.
#[allow(unsafe_code)]
fn unmap(Range { first, bytes }: Range) {
    if bytes == 0 {
        return;
    }
    let first = first as *mut libc::c_void;
    // SAFETY: whoever has a range has its pages to himself. Their addresses can only fail to go where the
    // system has no place for another mapping, into which those around would fall; what is in them goes then
    // too.
    unsafe {
        if libc::munmap(first, bytes) != 0 {
            libc::madvise(first, bytes, libc::MADV_DONTNEED);
        }
    }
}

/// The cached bytes.
#[cfg(test)]
pub(super) fn kept() -> u64 {
    KEPT.load(Ordering::Relaxed)
}
