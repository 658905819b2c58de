//! [`ClusterError`]: why the queue or the store of results cannot be used.

use std::path::PathBuf;

/// The result of work with the queue.
pub(crate) type Result<T> = std::result::Result<T, ClusterError>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the queue or the store of results cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The file of credentials cannot be read.
    #[error("cannot read the credentials `{}`: {source}", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A request to the queue failed.
    #[error("the queue: cannot {action}: {source}")]
    Queue {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Source,
    },
    /// The name of a store of results is none.
    #[error("`{place}` is no place for results: {reason}")]
    Place {
        /// What was given.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store of results fails.
    #[error("the store of results: cannot {action} `{name}`: {source}")]
    Results {
        /// What was tried.
        action: &'static str,
        /// The name of the object.
        name: String,
        /// Why it failed.
        source: Source,
    },
    /// A message or an entry is none of this program's.
    #[error("`{name}` in the queue cannot be read: {reason}")]
    Unreadable {
        /// Its key or subject.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of this machine cannot be used.
    #[error("cannot use `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another has written the status of a job.
    #[error("the job is another's")]
    Lost,
    /// The worker computes with nothing.
    #[error("the worker cannot run jobs: {reason}")]
    NoWork {
        /// Why not.
        reason: String,
    },
}

impl ClusterError {
    /// The error of a request to the queue.
    pub(crate) fn queue<E: Into<Source>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Queue {
            action,
            source: source.into(),
        }
    }
}
