//! Bytes: what memory there is, what a run uses and when.
//!
//! [`Bytes`] is the unit, [`memory_info`] the reading, [`Timeline`] what is kept of the readings.

mod bytes;
mod probe;
mod timeline;

pub use bytes::Bytes;
pub use probe::{MemoryInfo, memory_info};
pub use timeline::{Reading, Timeline};
