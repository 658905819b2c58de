//! Files and folders that others made, which may be anything: opened without waiting for a writer, read only as far as
//! their length is sensible, and walked without following links.
//!
//! Every crate that reads a path that a user, a download or an archive may have put there goes through these functions.

mod bounds;
mod read;
mod walk;

pub use bounds::{outside_of, stays_inside};
pub use read::{Unreadable, open, read_at_most, read_text_at_most};
pub use walk::{FoundFile, MOST_DEPTH, walk};
