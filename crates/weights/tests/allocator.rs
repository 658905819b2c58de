//! Large pieces that are allocated, grown, shrunk and freed in any order keep their bytes across mappings.
//!
//! The allocator's cache belongs to the process, so this test has its own.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::alloc::{GlobalAlloc, Layout};

use sd_weights::{CountingAllocator, allocated_bytes};

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

/// A number of sixty-four bits after the one before (Steele, Lea and Flood, "Fast Splittable Pseudorandom
/// Number Generators", 2014: splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From 100 KB to 64 MB, as many of each order of magnitude.
    fn size(&mut self) -> usize {
        let smallest: f64 = (100 * KB) as f64;
        let share = self.below(1 << 20) as f64 / f64::from(1 << 20);
        (smallest * ((64 * MB) as f64 / smallest).powf(share)) as usize
    }
}

/// A piece, each of whose pages begins with a number of its own.
struct Piece {
    start: *mut u8,
    layout: Layout,
    stamp: u64,
}

/// Every page begins on a multiple of this.
const PAGE: usize = 4 * KB;

#[allow(unsafe_code)]
impl Piece {
    fn taken(size: usize, stamp: u64, zeroed: bool) -> Self {
        let layout = Layout::from_size_align(size, 64).unwrap();
        // SAFETY: the layout is of some bytes.
        let start = unsafe {
            if zeroed {
                CountingAllocator.alloc_zeroed(layout)
            } else {
                CountingAllocator.alloc(layout)
            }
        };
        assert!(!start.is_null(), "no {size} bytes");
        let piece = Self { start, layout, stamp };
        if zeroed {
            assert!(
                piece.places(0).all(|place| piece.read(place) == 0),
                "{size} bytes of zeros"
            );
        }
        piece.write_from(0);
        piece
    }

    /// Where numbers stand, of pages from `from` on, and at the very end.
    fn places(&self, from: usize) -> impl Iterator<Item = usize> + use<> {
        let last = self.layout.size() - 8;
        (from.next_multiple_of(PAGE)..last).step_by(PAGE).chain([last])
    }

    fn read(&self, place: usize) -> u64 {
        // SAFETY: eight bytes from there on lie in the piece, which was written or zeroed there.
        unsafe { self.start.add(place).cast::<u64>().read_unaligned() }
    }

    fn write_from(&self, from: usize) {
        for place in self.places(from) {
            // SAFETY: eight bytes from there on lie in the piece.
            unsafe {
                self.start
                    .add(place)
                    .cast::<u64>()
                    .write_unaligned(self.number(place))
            };
        }
    }

    fn number(&self, place: usize) -> u64 {
        self.stamp ^ (place as u64) << 20
    }

    /// The first bytes of each page that lies within `end` whole.
    fn check(&self, end: usize) {
        for place in (0..end.saturating_sub(8)).step_by(PAGE) {
            // The end of a piece may stand over the beginning of its last page.
            if place + 16 <= end {
                assert_eq!(
                    self.read(place),
                    self.number(place),
                    "at {place} of {:?}",
                    self.layout
                );
            }
        }
    }

    fn resize(&mut self, size: usize) {
        let before = self.layout.size();
        // SAFETY: the piece has this layout, and the new size is of some bytes.
        self.start = unsafe { CountingAllocator.realloc(self.start, self.layout, size) };
        assert!(!self.start.is_null(), "{before} bytes do not become {size}");
        self.layout = Layout::from_size_align(size, 64).unwrap();
        self.check(before.min(size) - 16);
        self.write_from(0);
    }

    fn given_back(self) {
        self.check(self.layout.size() - 16);
        // SAFETY: the piece has this layout, and is used no more.
        unsafe { CountingAllocator.dealloc(self.start, self.layout) };
    }
}

#[test]
fn pieces_grow_and_shrink_in_any_order() {
    const SEQUENCES: u64 = 40;
    const TURNS: usize = 80;
    const MOST: usize = 256 * MB;
    let before = allocated_bytes();
    for sequence in 0..SEQUENCES {
        let mut numbers = Numbers(sequence);
        let mut pieces: Vec<Piece> = Vec::new();
        for turn in 0..TURNS {
            let held: usize = pieces.iter().map(|piece| piece.layout.size()).sum();
            let size = numbers.size();
            let fits = held + size <= MOST;
            match numbers.below(5) {
                0 | 1 if fits => {
                    let stamp = sequence << 48 | turn as u64;
                    pieces.push(Piece::taken(size, stamp, numbers.below(3) == 0));
                }
                2 | 3 if fits && !pieces.is_empty() => {
                    let index = numbers.below(pieces.len());
                    pieces[index].resize(size);
                }
                _ if !pieces.is_empty() => {
                    let index = numbers.below(pieces.len());
                    pieces.swap_remove(index).given_back();
                }
                _ => {}
            }
        }
        pieces.into_iter().for_each(Piece::given_back);
    }
    assert_eq!(allocated_bytes(), before);
}
