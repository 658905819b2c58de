//! The errors of this crate.

use std::path::PathBuf;
use std::time::Duration;

use crate::RepositoryId;

/// The result of the functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the hub or its cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings say that the program is offline.
    #[error("`{what}` is not on this machine, and HF_HUB_OFFLINE forbids to download it")]
    Offline {
        /// The requested resource.
        what: String,
    },
    /// The repository does not exist, or is private.
    #[error("the hub at {endpoint} knows no repository `{id}`{}", if *has_token { "" } else { " that everybody may see" })]
    NoRepository {
        /// The repository.
        id: RepositoryId,
        /// The URL of the hub.
        endpoint: String,
        /// Whether the request carried a token.
        has_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{id}` has no revision `{revision}`")]
    NoRevision {
        /// The repository.
        id: RepositoryId,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("`{id}` has no file `{file}`")]
    NoFile {
        /// The repository.
        id: RepositoryId,
        /// The file's path.
        file: String,
    },
    /// The repository is gated: its licence must be accepted first.
    #[error("`{id}` is gated: its files are for those who have accepted its licence{}",
        if *has_token { ", and the account of this token has not" } else { " and are logged in" })]
    Gated {
        /// The repository.
        id: RepositoryId,
        /// The page on which the licence can be accepted.
        page: String,
        /// Whether the request carried a token.
        has_token: bool,
    },
    /// The hub rejects the token.
    #[error("the hub at {endpoint} refuses the token")]
    TokenRefused {
        /// The URL of the hub.
        endpoint: String,
    },
    /// The account has no access.
    #[error("the hub refuses `{what}`{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Forbidden {
        /// The URL or resource that was requested.
        what: String,
        /// The message of the hub.
        reason: Option<String>,
    },
    /// No connection could be made.
    #[error("{host} cannot be reached: {reason}")]
    NoNetwork {
        /// The host.
        host: String,
        /// The reason.
        reason: String,
    },
    /// All attempts of a request failed.
    #[error("{url} cannot be downloaded: {reason} ({tries} tries)")]
    GaveUp {
        /// The URL or resource that was requested.
        url: String,
        /// The last failure.
        reason: String,
        /// The number of attempts.
        tries: u32,
    },
    /// The hub asks for a delay that is too long to wait for.
    #[error("{url} asks to retry in {} seconds", wait.as_secs())]
    Busy {
        /// The URL or resource that was requested.
        url: String,
        /// The delay.
        wait: Duration,
    },
    /// The response of the hub cannot be understood.
    #[error("{url} gave an invalid response: {reason}")]
    BadReply {
        /// The URL or resource that was requested.
        url: String,
        /// The defect.
        reason: String,
    },
    /// A downloaded file did not match its listed size or hash, twice.
    #[error("`{file}` of `{id}` was corrupted twice: {what} is {found}, the hub lists {wanted}")]
    Mismatch {
        /// The repository.
        id: RepositoryId,
        /// The file's path.
        file: String,
        /// The property that differs: the size or the hash.
        what: &'static str,
        /// The listed value.
        wanted: String,
        /// The value of the received file.
        found: String,
    },
    /// The disk is too full for the download.
    #[error("there is no space for {} bytes in `{}`: {} are free", wanted, folder.display(), free)]
    DiskFull {
        /// The folder of the cache.
        folder: PathBuf,
        /// Bytes that remain to be downloaded.
        wanted: u64,
        /// Free bytes.
        free: u64,
    },
    /// The cache cannot be read or written.
    #[error("cannot write `{}`", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Files that are to be removed are being downloaded.
    #[error("`{what}` is being downloaded by another process")]
    BeingFetched {
        /// The reference.
        what: String,
    },
    /// The system cannot start a thread for the network.
    #[error("the system refuses a thread for the network")]
    NoThread {
        /// The error of the system.
        source: std::io::Error,
    },
    /// The files to be removed or checked are not in the cache.
    #[error("`{what}` is not in the cache")]
    NotCached {
        /// The reference.
        what: String,
    },
    /// The user stopped the download, whose partial files are kept, or the check.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    /// Makes the error of a failed operation on `path`, for [`Result::map_err`].
    pub(crate) fn cache(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Cache { path, source }
    }

    /// Makes the error of a `path` that cannot be read, for [`Result::map_err`].
    pub(crate) fn unread(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Unread { path, source }
    }
}
