//! Downloads, the cache and replies of a hub, with a server of the tests' own.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod downloads;
mod hostile;
#[path = "../server/mod.rs"]
mod server;
