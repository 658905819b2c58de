//! Resuming a run after a signal, an error or a power failure.
//!
//! The state of a run is everything that a second process needs to generate the same images: the request with
//! all settings resolved, the latents of unfinished images after their last step, the list of saved images,
//! and the versions of the program, the device and the files that the images depend on. It is one file in the
//! folder of run states. It exists from the start of the run to its end, and every commit replaces it
//! atomically. It holds one group of images, so it does not grow with the run.
//!
//! There is a commit after every step, or after several quick steps, so that the disk is busy for a hundredth
//! of the time. A separate thread writes while the next step is computed. A kill loses the work since the
//! last commit: a step or two, or a minute of steps at most. Latents are stored bit by bit.
//!
//! Images are recognised as those of a run by its start time in their metadata. So an image that was saved
//! just before the process was killed is not saved again. The names of temporary files contain the run's id,
//! so that a resumed run removes its own and no others.

mod check;
mod commit;
mod commit_interval;
mod error;
mod journal;
mod kept_request;
mod later;
mod lock;
mod name;
mod runs;
mod saved;
mod state;
mod state_store;
#[cfg(test)]
mod tests;

pub use error::ResumeError;
pub(crate) use journal::Journal;
pub(crate) use later::Bundles;
pub use later::LaterRequest;
pub use name::RunName;
pub use runs::{ClaimedRun, InterruptedRun, Outline, discard, interrupted_runs};
