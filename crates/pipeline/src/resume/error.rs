//! Why an interrupted run cannot go on.

use std::path::PathBuf;

/// Why an interrupted run cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There is no interrupted run of this id.
    #[error("there is no interrupted run `{id}`")]
    NoSuchRun {
        /// What was asked for.
        id: String,
    },
    /// Another process works on the run.
    #[error("run {id} is still at work in another process")]
    AtWork {
        /// The run.
        id: String,
    },
    /// The file that holds the run's state is damaged.
    #[error("the state of run {id} in `{}` is damaged: {reason}", file.display())]
    Damaged {
        /// The run.
        id: String,
        /// The file.
        file: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The folder of states, or a file in it, cannot be used.
    #[error("cannot use `{}`", path.display())]
    State {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another version of the program began the run, and might generate a different image.
    #[error(
        "run {id} was begun by version {begun_by}, and this is {this}, which might generate a different image"
    )]
    OtherVersion {
        /// The run.
        id: String,
        /// The version that began it.
        begun_by: String,
        /// This version.
        this: String,
    },
    /// The state is written in a format of an earlier build.
    #[error("the state of run {id} is in format {found}, and this build goes on from format {wanted} alone")]
    OtherFormat {
        /// The run.
        id: String,
        /// The format of the state.
        found: u32,
        /// The format of this build.
        wanted: u32,
    },
    /// The run was begun on a device that may compute other bits.
    #[error("run {id} was begun on {begun_on}, and this is {this}, which might generate a different image")]
    OtherDevice {
        /// The run.
        id: String,
        /// Where it was begun.
        begun_on: String,
        /// What is here.
        this: String,
    },
    /// A file that the images depend on is no longer what it was when the run began.
    #[error("`{}` has changed since run {id} began, which would change the images", file.display())]
    ModelChanged {
        /// The run.
        id: String,
        /// The first file that has changed, come or gone.
        file: PathBuf,
    },
}
