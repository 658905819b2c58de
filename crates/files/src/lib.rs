//! Safe access to untrusted files and folders: files are opened without blocking on a writer, read up to a
//! maximum length, folders are walked without following links, and paths have the separators of the system.
//!
//! All crates read paths that come from a user, a download or an archive through these functions.

mod bounds;
mod read;
mod separators;
mod walk;

pub use bounds::{outside_of, stays_inside};
pub use read::{Unreadable, open, read_at_most, read_text_at_most};
pub use separators::{below, native, portable};
pub use walk::{FoundFile, MOST_DEPTH, walk};
