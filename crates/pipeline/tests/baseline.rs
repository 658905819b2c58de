//! A process that has generated an image is as small as before the next: memory does not grow from run to
//! run. This needs a process of its own. `SD_TEST_BASELINE_MODEL=DIR` measures another model than the
//! built-in one.

//!
//! It has no test harness, whose threads would allocate from an arena that glibc never trims.

#![cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    allow(dead_code, unused_imports)
)]
#![allow(clippy::unwrap_used)] // Without its data a test has failed.
#![allow(clippy::print_stdout, clippy::print_stderr)] // For whoever runs the test.

use std::path::{Path, PathBuf};

use sd_pipeline::memory::{CountingAllocator, cleanup_memory, keep_heap_small};
use sd_pipeline::{DeviceChoice, Event, ImageSize, Interrupt, ModelChoice, ModelFiles, Recommended, Request};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const SOURCE_IMAGES: u64 = 10;
/// From this image on nothing may grow by more than 2% of the process.
const SETTLING: usize = 2;
/// Before that there are pages of stacks and of tables that the first image did not come to.
const FIRST_SLACK: u64 = 512 << 10;
/// What is allocated may differ by: the list of this test's figures grows, for one.
const ALLOCATED_SLACK: u64 = 4 << 10;

fn request(seed: u64, output: &Path) -> Request {
    let built_in = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let other = std::env::var_os("SD_TEST_BASELINE_MODEL");
    let model = ModelChoice {
        name: "model".to_owned(),
        files: ModelFiles::at(other.as_ref().map_or_else(built_in, PathBuf::from)),
        recommended: Recommended::default(),
    };
    Request {
        steps: Some(if other.is_some() { 1 } else { 4 }),
        size: other.map(|_| ImageSize::new(64, 64).unwrap().into()),
        seeds: seed.into(),
        output: output.to_owned(),
        device: DeviceChoice::Cpu,
        ..Request::new("a red circle above a blue square", model)
    }
}

/// Memory of the process's own and all of it, page by page: what the kernel keeps count of lags behind by batches of pages for
/// each CPU. Pages of the program itself come and go as the system likes.
fn own_and_all() -> (u64, u64) {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let bytes = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    (bytes("Anonymous:"), bytes("Rss:"))
}

fn main() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    memory_does_not_grow_with_the_number_of_images();
    println!("test memory_does_not_grow_with_the_number_of_images ... ok");
}

fn memory_does_not_grow_with_the_number_of_images() {
    keep_heap_small();
    let folder = tempfile::tempdir().unwrap();
    let mut left = Vec::new();
    for seed in 0..SOURCE_IMAGES {
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::Engine::new().run(
            &request(seed, folder.path()),
            &mut observer,
            &Interrupt::default(),
        );
        assert_eq!(saved.unwrap().len(), 1);
        // What other threads freed after the run's own cleaning.
        cleanup_memory(true);
        let ((own, all), allocated) = (own_and_all(), sd_weights::allocated_bytes());
        eprintln!(
            "after image {seed}: {} of {} KB resident are its own, {allocated} bytes allocated",
            own >> 10,
            all >> 10
        );
        left.push((own, all, allocated));
    }
    let (first, all, first_allocated) = left[0];
    let (settled, ..) = left[SETTLING];
    for (image, &(own, _, allocated)) in left.iter().enumerate().skip(1) {
        assert!(
            own <= first + all / 50 + FIRST_SLACK,
            "{first}, later {own}: {left:?}"
        );
        assert!(
            image <= SETTLING || own <= settled + all / 50,
            "{settled}, later {own}: {left:?}"
        );
        assert!(
            allocated <= first_allocated + ALLOCATED_SLACK,
            "{first_allocated}, later {allocated}"
        );
    }
}
