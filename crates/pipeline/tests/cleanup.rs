//! A cleanup returns freed memory to the system. This is measured by the resident size, which needs a process
//! of its own.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::thread;

use sd_memory::Bytes;
use sd_pipeline::memory::{cleanup_memory, keep_heap_small, memory_info};

const KB: usize = 1 << 10;
const MB: u64 = 1 << 20;

/// Bytes that the pieces have together.
const ALL: usize = 160 << 20;
/// Every so many pieces one stays, so that the pages are not all in one piece behind the last that is used.
const STAYS: usize = 500;

/// Many pieces of many sizes, written to; small ones and some of just below a megabyte, in no order.
fn pieces() -> Vec<Vec<u8>> {
    let sizes = [
        48,
        100 * KB,
        700,
        3 * KB,
        31 * KB,
        200,
        900 * KB,
        17 * KB,
        5000,
        64 * KB,
    ];
    let (mut all, mut bytes, mut state) = (Vec::new(), 0, 12_345_usize);
    while bytes < ALL {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let size = sizes[(state >> 33) % sizes.len()] + (state >> 40) % 97;
        all.push(vec![1; size]);
        bytes += size;
    }
    all
}

/// Frees all but a few small ones.
fn freed(pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let few = pieces
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % STAYS == 0);
    few.map(|(_, piece)| piece)
        .filter(|piece| piece.len() < 1000)
        .collect()
}

fn resident() -> Bytes {
    memory_info().process
}

#[test]
fn what_is_freed_goes_back_to_the_system() {
    keep_heap_small();
    // What the runtime takes when it is first used is no part of this.
    cleanup_memory(true);
    let baseline = resident();

    let here = pieces();
    // The allocator keeps an arena for each thread.
    let (elsewhere, left_elsewhere) = thread::spawn(|| {
        let all = pieces();
        let resident = resident();
        (resident, freed(all))
    })
    .join()
    .unwrap();
    assert!(elsewhere.0 > baseline.0 + 300 * MB, "{baseline} {elsewhere}");
    let left_here = freed(here);
    let kept = resident();
    assert!(
        kept.0 > baseline.0 + 50 * MB,
        "the allocator gave all back by itself, so that this shows nothing: {baseline} {kept}"
    );

    cleanup_memory(true);
    let cleaned = resident();
    eprintln!("{baseline} at first, {elsewhere} with all, {kept} after freeing, {cleaned} after the cleanup");
    assert!(cleaned.0 <= baseline.0 + 4 * MB, "{baseline} {cleaned}");
    drop((left_here, left_elsewhere));
}
