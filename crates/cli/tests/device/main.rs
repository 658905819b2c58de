//! The command on an Apple GPU: the same images as on a CPU, and the memory of full-size models.
//!
//! On systems other than macOS it runs on a stand-in: `tools/metal-standin/check.sh`.

#![cfg(any(target_os = "macos", feature = "metal"))]
#![allow(clippy::unwrap_used)] // Without its data a test has failed.
// The shared modules have more than these tests use.
#![allow(dead_code)]

#[path = "../../../models/examples/synthesize/architecture/mod.rs"]
mod architecture;
#[path = "../command/mod.rs"]
mod command;
#[cfg(not(target_os = "macos"))]
mod full_size;
mod images;
#[path = "../../../models/examples/synthesize/networks/mod.rs"]
mod networks;
#[cfg(not(target_os = "macos"))]
mod opening;
#[path = "../../../models/examples/synthesize/shards.rs"]
mod shards;
