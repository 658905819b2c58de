//! Images made larger where no network is at hand for it.

mod lanczos;

pub use lanczos::lanczos3;
pub(crate) use lanczos::{Window, along_rows, byte, lanczos3_bytes, windows};
