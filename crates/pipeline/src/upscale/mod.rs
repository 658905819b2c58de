//! Pictures made larger where no network is at hand for it.

mod lanczos;

pub use lanczos::lanczos3;
