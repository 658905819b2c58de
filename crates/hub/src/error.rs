//! Why something could not be had of the hub, or of its cache, each with the facts that name it.

use std::path::PathBuf;
use std::time::Duration;

use crate::RepositoryId;

/// The result of every call into this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings forbid to ask the hub.
    #[error("`{what}` is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub")]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// There is no such repository, or the user may not know of it.
    #[error("the hub at {endpoint} knows no repository `{id}`{}", if *has_token { "" } else { " that everybody may see" })]
    NoRepository {
        /// The repository.
        id: RepositoryId,
        /// The hub's address.
        endpoint: String,
        /// Whether a token was shown.
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
    /// The repository's files are for those who have accepted its licence.
    #[error("`{id}` is gated: its files are for those who have accepted its licence{}",
        if *has_token { ", and the account of this token has not" } else { " and are logged in" })]
    Gated {
        /// The repository.
        id: RepositoryId,
        /// The page on which the licence can be accepted.
        page: String,
        /// Whether a token was shown.
        has_token: bool,
    },
    /// The hub does not know the token.
    #[error("the hub at {endpoint} refuses the token")]
    TokenRefused {
        /// The hub's address.
        endpoint: String,
    },
    /// The hub knows who asks and does not give it.
    #[error("the hub refuses `{what}`{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Forbidden {
        /// What was asked for.
        what: String,
        /// What the hub says.
        reason: Option<String>,
    },
    /// No connection came about.
    #[error("{host} cannot be reached: {reason}")]
    NoNetwork {
        /// Where to.
        host: String,
        /// Why not.
        reason: String,
    },
    /// What was asked for failed again and again.
    #[error("{url} cannot be had: {reason} ({tries} tries)")]
    GaveUp {
        /// What was asked for.
        url: String,
        /// What happened the last time.
        reason: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The hub wants to be left alone for long.
    #[error("{url} wants to be asked again in {} seconds", wait.as_secs())]
    Busy {
        /// What was asked for.
        url: String,
        /// How long.
        wait: Duration,
    },
    /// The hub's answer cannot be understood.
    #[error("{url} gave an answer that cannot be used: {reason}")]
    BadReply {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// What arrived is not what the hub lists, twice.
    #[error("`{file}` of `{id}` arrived wrong twice: {what} is {found}, the hub lists {wanted}")]
    Mismatch {
        /// The repository.
        id: RepositoryId,
        /// The file's path.
        file: String,
        /// Its size, or its hash.
        what: &'static str,
        /// As listed.
        wanted: String,
        /// As it arrived.
        found: String,
    },
    /// The disk has too little room.
    #[error("there is no room for {} bytes in `{}`: {} are free", wanted, folder.display(), free)]
    DiskFull {
        /// The cache.
        folder: PathBuf,
        /// Bytes that are still to come.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The cache cannot be read or written.
    #[error("cannot write `{}`", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What is to be removed is being fetched.
    #[error("`{what}` is being fetched by another process")]
    BeingFetched {
        /// What it is.
        what: String,
    },
    /// The system has no thread to give that the network could be waited for on.
    #[error("there is no thread to wait for the network on")]
    NoThread {
        /// The system's reason.
        source: std::io::Error,
    },
    /// The cache does not hold what is to be removed.
    #[error("`{what}` is not in the cache")]
    NotCached {
        /// What it does not hold.
        what: String,
    },
    /// The user asked to stop. What has arrived is kept.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    /// For [`Result::map_err`] of what is done with the file or folder at `path`.
    pub(crate) fn cache(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Cache { path, source }
    }
}
