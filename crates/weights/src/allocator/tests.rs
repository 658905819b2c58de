//! Allocations and frees of large pieces.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::alloc::{GlobalAlloc, Layout};

use super::{CountingAllocator, LARGE};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 64).unwrap()
}

/// A single test: the cache belongs to the process.
#[test]
#[allow(unsafe_code)]
fn pieces_are_cached_up_to_the_limit() {
    let allocator = CountingAllocator;
    let resident_and_allocated = || (super::pieces::kept(), super::allocated_bytes());
    // SAFETY: each piece is used as long as it is, within its bytes, and goes back with its layout.
    unsafe {
        let large = 3 * LARGE + 5;
        let first = allocator.alloc(layout(large));
        first.write_bytes(7, large);
        let (kept, allocated) = resident_and_allocated();
        allocator.dealloc(first, layout(large));
        let bytes = large.next_multiple_of(4 << 10) as u64;
        assert_eq!(resident_and_allocated(), (kept + bytes, allocated - large as u64));

        // It is reused, with zeros where these are requested.
        let again = allocator.alloc_zeroed(layout(large));
        assert_eq!((again, resident_and_allocated()), (first, (kept, allocated)));
        assert!(
            std::slice::from_raw_parts(again, large)
                .iter()
                .all(|&byte| byte == 0)
        );

        // Zeros that nobody touches are not made of it.
        allocator.dealloc(again, layout(large));
        let untouched = super::with_untouched_zeros(|| allocator.alloc_zeroed(layout(large)));
        assert!(untouched != first && *untouched.add(large / 2) == 0);
        let used = allocator.alloc(layout(large));
        assert_eq!(used, first);
        allocator.dealloc(untouched, layout(large));
        // Its neighbours are not merged with it.
        super::pieces::give_all_back(super::allocated_bytes());
        let again = used;

        // Two smaller pieces fit into it, and are merged again, whichever is freed first.
        allocator.dealloc(again, layout(large));
        let pair = [allocator.alloc(layout(LARGE)), allocator.alloc(layout(LARGE))];
        assert_eq!(pair, [first, first.add(LARGE)]);
        allocator.dealloc(pair[0], layout(LARGE));
        allocator.dealloc(pair[1], layout(LARGE));
        assert_eq!(allocator.alloc(layout(large)), first);

        // Pieces that grow and shrink past the threshold keep their bytes.
        let mut piece = allocator.alloc(layout(1000));
        piece.write_bytes(9, 1000);
        let sizes = [1000, LARGE + 1, 4 * LARGE, LARGE, 500];
        for (from, to) in sizes.iter().zip(&sizes[1..]) {
            piece = allocator.realloc(piece, layout(*from), *to);
            assert!(
                std::slice::from_raw_parts(piece, 500)
                    .iter()
                    .all(|&byte| byte == 9)
            );
        }
        allocator.dealloc(piece, layout(500));

        // Little more is cached than the peak in use.
        allocator.dealloc(first, layout(large));
        let allocated = super::allocated_bytes();
        let huge = allocator.alloc(layout(64 * LARGE));
        allocator.dealloc(huge, layout(64 * LARGE));
        assert!(super::pieces::kept() >= 64 * LARGE as u64);
        let larger = allocator.alloc(layout(96 * LARGE));
        assert_eq!(
            resident_and_allocated(),
            (super::pieces::SPARE, allocated + 96 * LARGE as u64)
        );
        allocator.dealloc(larger, layout(96 * LARGE));
        let held = allocator.alloc(layout(40 * LARGE));
        super::release_free_memory(true);
        assert_eq!(resident_and_allocated(), (0, allocated + 40 * LARGE as u64));
        allocator.dealloc(held, layout(40 * LARGE));
    }
}
