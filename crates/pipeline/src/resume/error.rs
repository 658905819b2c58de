//! The errors of resuming an interrupted run.

use std::path::PathBuf;

/// Why an interrupted run cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// There is no interrupted run with this id.
    #[error("there is no interrupted run `{id}`")]
    NoSuchRun {
        /// The requested id.
        id: String,
    },
    /// Another process is working on the run.
    #[error("run {id} is still at work in another process")]
    AtWork {
        /// The run.
        id: String,
    },
    /// The state file of the run is damaged.
    #[error("the state of run {id} in `{}` is damaged: {reason}", file.display())]
    Damaged {
        /// The run.
        id: String,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder of run states, or a file in it, cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    State {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The run was started by another version of the program, and might generate a different image.
    #[error(
        "run {id} was begun by version {begun_by}, and this is {this}, which might generate a different image"
    )]
    OtherVersion {
        /// The run.
        id: String,
        /// The version that started it.
        begun_by: String,
        /// This version.
        this: String,
    },
    /// The state has the format of another build.
    #[error("the state of run {id} is in format {found}, and this build resumes only format {wanted}")]
    OtherFormat {
        /// The run.
        id: String,
        /// The format of the state.
        found: u32,
        /// The format of this build.
        wanted: u32,
    },
    /// The run was started on a device that may compute other bits.
    #[error("run {id} was begun on {begun_on}, and this is {this}, which might generate a different image")]
    OtherDevice {
        /// The run.
        id: String,
        /// The device that it was started on.
        begun_on: String,
        /// The current device.
        this: String,
    },
    /// A file that the images depend on has changed since the run started.
    #[error("`{}` has changed since run {id} began, which would change the images", file.display())]
    ModelChanged {
        /// The run.
        id: String,
        /// The first file that was changed, added or removed.
        file: PathBuf,
    },
}
