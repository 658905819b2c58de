//! A process that has drawn a picture is as small as before it drew the next: nothing grows from run to run. Only a
//! process of its own can measure that. `SD_TEST_BASELINE_MODEL=DIR` measures it with another model than the built-in one.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;
use sd_pipeline::memory::{CountingAllocator, keep_heap_small};
use sd_pipeline::{
    DeviceChoice, Event, ImageSize, Interrupt, ModelChoice, ModelFolder, Recommended, Request,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PICTURES: u64 = 10;
/// What is allocated may differ by: the list of this test's figures grows, for one.
const ALLOCATED_SLACK: u64 = 4 << 10;

fn request(seed: u64, output: &Path) -> Request {
    let built_in = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let other = std::env::var_os("SD_TEST_BASELINE_MODEL");
    let model = ModelChoice {
        name: "model".to_owned(),
        folder: ModelFolder::on_disk(other.as_ref().map_or_else(built_in, PathBuf::from)),
        recommended: Recommended::default(),
    };
    Request {
        steps: Some(if other.is_some() { 1 } else { 4 }),
        size: other.map(|_| ImageSize::new(64, 64).unwrap()),
        seed,
        output: output.to_owned(),
        device: DeviceChoice::Cpu,
        ..Request::new("a red circle above a blue square", model)
    }
}

/// Resident memory, page by page: what the kernel keeps count of lags behind by batches of pages for each processor. The
/// program itself, of which pages come as they are needed, is not in it.
fn resident() -> Bytes {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    Bytes(kilobytes << 10)
}

#[test]
fn ten_pictures_leave_what_one_leaves() {
    keep_heap_small();
    let folder = tempfile::tempdir().unwrap();
    let mut left = Vec::new();
    for seed in 0..PICTURES {
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::generate(
            &request(seed, folder.path()),
            &mut observer,
            &Interrupt::default(),
        );
        assert_eq!(saved.unwrap().len(), 1);
        left.push((resident(), Bytes(sd_weights::allocated_bytes())));
        eprintln!(
            "after picture {seed}: {} KB resident, {} bytes allocated",
            left[seed as usize].0.0 >> 10,
            left[seed as usize].1.0
        );
    }
    let (first, first_allocated) = left[0];
    for &(resident, allocated) in &left[1..] {
        let difference = resident.0.abs_diff(first.0);
        assert!(difference <= first.0 / 50, "{first}, later {resident}: {left:?}");
        assert!(
            allocated.0 <= first_allocated.0 + ALLOCATED_SLACK,
            "{first_allocated}, later {allocated}"
        );
    }
}
