//! Going on with a run that was interrupted: by a signal, an error, the power.
//!
//! The state of a run is everything that a second process needs to generate the images that the first would have
//! generated: the request with all that it left open settled, the latents of the images at work after their last step, which
//! images are saved, and what the program, the device and the files were that images depend on. It is one file in the
//! user's folder of states, which is there from the run's beginning to its end and is replaced whole at every commit. It
//! holds one group of images, so it does not grow with the run.
//! There is one after every step, or, where steps are quick, after every so many, so that the disk is at work for a
//! hundredth of the time. No step waits for it: a thread of its own writes while the next one is computed. A kill costs
//! the work since the last commit: a step or two, or a minute of steps at most. Latents are kept to the bit.
//!
//! Images are recognised as a run's own by the moment of its beginning, which is in their metadata. So one that
//! was saved just before the process was killed is not saved again. Temporary files, among the images too, carry
//! the run's id, so that who goes on with it removes its own and nobody else's.

mod check;
mod commit;
mod commit_interval;
mod error;
mod journal;
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
pub use name::RunName;
pub use runs::{ClaimedRun, InterruptedRun, Outline, discard, interrupted_runs};
