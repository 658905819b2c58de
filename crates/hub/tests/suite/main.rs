//! Downloads, the cache and the hub's replies, with a local test server.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod downloads;
mod hostile;
#[path = "../server/mod.rs"]
mod server;
