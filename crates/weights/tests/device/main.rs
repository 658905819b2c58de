//! Streaming to a GPU: the same values at every residency, within the memory of the window, with slow kernels
//! and with slow reading. It needs a device:
//! `cargo test --release -p sd-weights --features cuda --test device -- --nocapture --test-threads 1`
//! On macOS the feature is left out. `tools/metal-standin/cargo.sh test -p sd-weights --test device` needs no
//! device.

#![cfg(any(feature = "cuda", metal))]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed.

#[cfg(feature = "cuda")]
mod discrete;
mod network;
#[cfg(all(metal, not(feature = "cuda")))]
mod unified;

#[cfg(feature = "cuda")]
use discrete as measured;
#[cfg(all(metal, not(feature = "cuda")))]
use unified as measured;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_weights::{HostMemory, Residency, bytes_read, bytes_uploaded, release_device_memory};

use self::measured::{Measured, open};
use self::network::{BLOCKS, Model, block_bytes, forward};

const MIB: u64 = 1 << 20;

/// One test at a time, because all count the memory of one device.
fn alone() -> MutexGuard<'static, ()> {
    static DEVICE: Mutex<()> = Mutex::new(());
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn where_a_block_lives_changes_no_value_and_a_window_is_held() {
    let _alone = alone();
    let device = open();
    let model = Model::new(measured::SIDE);
    // Kernels that take less time than the reading, and kernels that take longer.
    for (rows, times, delay) in measured::PACES {
        let delay = Duration::from_millis(delay);
        let resident = model.network(&device, Residency::Resident, HostMemory::default());
        resident.load().unwrap();
        let expected = forward(&resident, &device, rows, times);
        assert!(expected.iter().all(|sum| sum.is_finite()));
        release_device_memory(&device).unwrap();
        let measured = Measured::start(&device);
        forward(&resident, &device, rows, times);
        let scratch = measured.peak();
        drop(resident);

        for (residency, host) in [
            (Residency::Resident, 0),
            (Residency::Streamed, 0),
            (Residency::Streamed, u64::MAX),
            (Residency::Streamed, 4 * block_bytes(measured::SIDE)),
            (Residency::Partly(3), u64::MAX),
        ] {
            release_device_memory(&device).unwrap();
            let measured = Measured::start(&device);
            let host_memory = HostMemory::up_to(host);
            let blocks = model.slow_network(&device, residency, host_memory.clone(), delay);
            blocks.load().unwrap();
            for pass in 0..3 {
                let (start, read, uploaded) = (Instant::now(), bytes_read(), bytes_uploaded());
                let found = forward(&blocks, &device, rows, times);
                let seconds = start.elapsed().as_secs_f64();
                assert!(found == expected, "{residency:?} with {host} in pass {pass}");
                let uploaded = bytes_uploaded() - uploaded;
                eprintln!(
                    "{rows} rows, {residency:?}, pass {pass}: {:.1} ms, {} KiB read, {} KiB to the device, {:.1} GB/s",
                    1e3 * seconds,
                    (bytes_read() - read) >> 10,
                    uploaded >> 10,
                    uploaded as f64 / seconds / 1e9,
                );
            }
            let kept = residency.kept_of(BLOCKS);
            let window = Residency::WINDOW.min(BLOCKS - kept);
            let held = (kept + window) as u64 * measured::taken_by_block();
            let peak = measured.peak();
            eprintln!(
                "{} KiB of {} and {} at the peak, {} MiB of host memory",
                peak >> 10,
                held >> 10,
                scratch >> 10,
                host_memory.taken() / MIB
            );
            assert!(
                peak <= held + scratch + measured::SLACK,
                "{residency:?}: {peak} for {held} and {scratch}"
            );
            let streamed = (BLOCKS - kept) as u64 * block_bytes(measured::SIDE);
            let cached = measured::cached_in_host_memory(host.min(streamed));
            assert_eq!(host_memory.taken(), cached, "{residency:?}");
            // A network that is dropped while blocks are on their way.
            blocks.pass().unwrap();
            drop(blocks);
            assert_eq!(host_memory.taken(), 0);
            assert_eq!(measured.left(), 0, "{residency:?} leaves something behind");
        }
    }
}

#[test]
fn what_was_read_before_an_error_is_freed() {
    let _alone = alone();
    let device = open();
    let model = Model::new(measured::SIDE);
    release_device_memory(&device).unwrap();
    let measured = Measured::start(&device);
    for residency in [Residency::Resident, Residency::Streamed, Residency::Partly(5)] {
        let blocks = model.failing_network(&device, residency);
        let failed = blocks.pass().unwrap().position(|block| block.is_err());
        assert_eq!(failed, Some(network::FAILS), "{residency:?}");
        // The blocks after it are read as before.
        assert!(
            blocks
                .pass()
                .unwrap()
                .skip(network::FAILS + 1)
                .all(|block| block.is_ok())
        );
        drop(blocks);
        assert_eq!(measured.left(), 0, "{residency:?} leaves something behind");
    }
}
