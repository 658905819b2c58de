//! Large pieces of memory, which are mapped from the system and kept for the next of their kind.
//!
//! A piece that comes from the system is filled with zeros page by page when it is first touched, which takes longer than
//! most operations on it; one that was used before lies in the processor's caches. So what is freed is kept, but hardly more than
//! makes up the most that was in use at some moment before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A multiple of the size of a page, of which other processors have larger ones.
const PAGE: usize = if cfg!(target_arch = "x86_64") {
    4 << 10
} else {
    64 << 10
};
/// The size of a large page.
const LARGE_PAGE: usize = 2 << 20;
/// The most ranges that are kept. More are rarely free: neighbours become one.
const MOST: usize = 512;

/// So much more may be kept: what lies in ranges that are too small for what is wanted. Without it such ranges are given back,
/// for pages that are filled with zeros first.
pub(super) const SPARE: u64 = 2 << 20;

/// Bytes that are kept.
static KEPT: AtomicU64 = AtomicU64::new(0);
/// The most bytes that were in use since [`give_all_back`].
static MOST_IN_USE: AtomicU64 = AtomicU64::new(0);

static FREE: Mutex<Free> = Mutex::new(Free {
    ranges: [Range { first: 0, bytes: 0 }; MOST],
    count: 0,
});

/// Pages that nobody uses.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: usize,
    bytes: usize,
}

/// Ranges that are kept, by their addresses.
struct Free {
    ranges: [Range; MOST],
    count: usize,
}

/// A piece of at least `bytes` that was kept, with whatever is in it.
pub(super) fn take(bytes: usize) -> Option<*mut u8> {
    if KEPT.load(Ordering::Relaxed) < bytes as u64 {
        return None;
    }
    free().take(pages(bytes)).map(|first| first as *mut u8)
}

/// Keeps a piece for the next one.
///
/// # Safety
/// It has as many `bytes`, and nobody uses it.
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

/// Makes a piece larger or smaller, wherever it then lies. Nothing where the system refuses: then it is as it was.
///
/// Refused is more than what there is no memory for. Neighbours that are kept become one range whatever mappings they came
/// from, and pages of two mappings cannot be moved as one (`EFAULT`); and a process may have only so many mappings. Who is
/// refused takes another piece and copies.
///
/// # Safety
/// It has as many bytes as are said, and when it becomes smaller nobody uses its end any more.
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

/// Gives back what is kept beyond the most that was in use before, now that so many bytes are.
pub(super) fn make_room(in_use: u64) {
    let most = MOST_IN_USE.fetch_max(in_use, Ordering::Relaxed).max(in_use);
    if in_use + KEPT.load(Ordering::Relaxed) > most + SPARE {
        free().shrink_to((most + SPARE - in_use) as usize);
    }
}

/// Gives all back that is kept. What is in use from now on decides how much may be kept.
pub(super) fn give_all_back(in_use: u64) {
    free().shrink_to(0);
    MOST_IN_USE.store(in_use, Ordering::Relaxed);
}

/// Nothing in here panics while it is locked, and nothing allocates.
fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many bytes as whole pages.
fn pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE)
}

impl Free {
    /// Takes the beginning of the smallest range that is large enough.
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

    /// Keeps a range, together with its neighbours. Fails where there is no place for it.
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

    /// Gives pages back, of small ranges first, until at most so many bytes are kept.
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

/// A fresh piece of at least `bytes`, all zero, which begins with a large page where there are so many. Null where the
/// system has none, even after what is kept has gone back: what is free may lie in ranges that are all too small, and counts
/// towards a limit on addresses (`RLIMIT_AS`).
pub(super) fn map(bytes: usize) -> *mut u8 {
    let bytes = pages(bytes);
    let fresh = || map_on_large_pages(bytes).or_else(|| map_anywhere(bytes));
    let first = fresh().or_else(|| {
        free().shrink_to(0);
        fresh()
    });
    first.map_or(std::ptr::null_mut(), |first| first as *mut u8)
}

/// Fresh pages, wherever the system likes.
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

/// Fresh pages that begin with a large one, if there are so many.
///
/// Large pages are had two to three times as fast when they are first touched, and processors look addresses up less often.
/// No more becomes resident than was asked for, since only whole large pages are taken.
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
    // SAFETY: the pages are ours, and the advice changes none of their bytes. Where it is not taken nothing is lost.
    unsafe { libc::madvise(aligned as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    Some(aligned)
}

/// Gives pages back that nobody uses.
#[allow(unsafe_code)]
fn unmap(Range { first, bytes }: Range) {
    if bytes == 0 {
        return;
    }
    let first = first as *mut libc::c_void;
    // SAFETY: whoever has a range has its pages to himself. Their addresses can only fail to go where the system has no place
    // for another mapping, into which those around would fall; what is in them goes then too.
    unsafe {
        if libc::munmap(first, bytes) != 0 {
            libc::madvise(first, bytes, libc::MADV_DONTNEED);
        }
    }
}

/// Bytes that are kept.
#[cfg(test)]
pub(super) fn kept() -> u64 {
    KEPT.load(Ordering::Relaxed)
}
