//! Upscaling without a network.

mod lanczos;

pub use lanczos::lanczos3;
pub(crate) use lanczos::{Window, along_rows, byte, lanczos3_bytes, windows};
