//! An allocator that reuses large freed buffers, as that of the program does: otherwise rates would be those of the
//! operating system, which zeroes the pages of each result.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;

/// The system's allocator with a list of freed buffers.
pub(crate) struct Reuse {
    freed: Mutex<[Option<Freed>; 4]>,
}

/// A buffer of the system's allocator that nobody uses.
struct Freed {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: memory may be used by any thread, one at a time.
unsafe impl Send for Freed {}

/// Buffers of this size or more are kept.
const LARGE: usize = 128 << 10;

impl Reuse {
    pub(crate) const fn new() -> Self {
        Self {
            freed: Mutex::new([const { None }; 4]),
        }
    }
}

// SAFETY: all memory is the system allocator's, and a buffer of the list is given to one caller alone, who asked for
// its layout.
unsafe impl GlobalAlloc for Reuse {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE
            && let Ok(mut freed) = self.freed.lock()
            && let Some(place) = freed
                .iter_mut()
                .find(|place| place.as_ref().is_some_and(|freed| freed.layout == layout))
            && let Some(freed) = place.take()
        {
            return freed.pointer;
        }
        // SAFETY: the caller's promises are the ones that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let mut given = Some(Freed { pointer, layout });
        if layout.size() >= LARGE
            && let Ok(mut freed) = self.freed.lock()
        {
            // The oldest one is freed.
            freed.rotate_right(1);
            std::mem::swap(&mut freed[0], &mut given);
        }
        if let Some(Freed { pointer, layout }) = given {
            // SAFETY: it came from the system's allocator with this layout.
            unsafe { System.dealloc(pointer, layout) };
        }
    }
}
