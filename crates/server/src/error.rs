//! Why the server cannot start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The result of the server's own work.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Others could connect, and nothing keeps them out.
    #[error("{address} can be reached from other machines, and no token is set")]
    Unprotected {
        /// The address to listen on.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address to listen on.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The file of keys is wrong.
    #[error("the keys in `{}` cannot be used: {reason}", file.display())]
    Keys {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key can be guessed.
    #[error("the key has fewer than {least} characters")]
    ShortKey {
        /// How many it must have.
        least: usize,
    },
    /// There is no folder for jobs: the system names none for the user's state.
    #[error("there is no folder for the state of this user")]
    NoStateFolder,
    /// No server has had its jobs there.
    #[error("there are no jobs of a server in `{}`", folder.display())]
    NoJobs {
        /// The folder that was looked at.
        folder: PathBuf,
    },
    /// A file or folder of the server cannot be used.
    #[error("cannot use `{}`: {source}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server uses the folder.
    #[error("another server uses `{}`", folder.display())]
    InUse {
        /// The folder of the server's state.
        folder: PathBuf,
    },
    /// The data base of jobs fails.
    #[error("the data base of jobs: {0}")]
    Store(#[from] rusqlite::Error),
    /// The queue or the store of results cannot be used.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// The server's threads cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The connection of the server fails.
    #[error("the server has stopped: {0}")]
    Stopped(io::Error),
}

impl Error {
    /// Whether it may be over in a while, because the disk is full or cannot be written now.
    pub(crate) fn is_of_storage(&self) -> bool {
        match self {
            Self::Store(rusqlite::Error::SqliteFailure(failure, _)) => matches!(
                failure.code,
                rusqlite::ErrorCode::DiskFull
                    | rusqlite::ErrorCode::ReadOnly
                    | rusqlite::ErrorCode::SystemIoFailure
                    | rusqlite::ErrorCode::CannotOpen
                    | rusqlite::ErrorCode::DatabaseBusy
            ),
            Self::Folder { source, .. } => is_of_storage(source),
            _ => false,
        }
    }
}

/// Whether a failure of a file may be over in a while.
pub(crate) fn is_of_storage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
    )
}
