//! Messages and hints for errors of the hub and its cache.

use std::io;

use sd_hub::Error;
use sd_pipeline::Bytes;

use super::{Failure, INTERRUPTED, NO_MODEL, USAGE, chain};

impl Failure {
    /// The error of a `name` that is neither a preset nor a hub id.
    pub(crate) fn no_such_name(name: &str) -> Self {
        let hint = "an id has the form owner/name or owner/name@revision; `--quality help` lists the presets";
        Self {
            message: format!("`{name}` is not the id of a repository on the hub"),
            hint: Some(hint.to_owned()),
            code: USAGE,
        }
    }

    /// The error of text that is no token.
    pub(crate) fn no_token(endpoint: &str) -> Self {
        Self {
            message: "the input is not a token".to_owned(),
            hint: Some(format!(
                "create one at {endpoint}/settings/tokens: hf_ and letters, without spaces"
            )),
            code: USAGE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: message(&error),
            hint: Some(hint(&error)),
            code: match error {
                Error::Stopped => INTERRUPTED,
                _ => NO_MODEL,
            },
        }
    }
}

/// The error in one line, with sizes in readable units.
fn message(error: &Error) -> String {
    match error {
        Error::DiskFull { folder, wanted, free } => format!(
            "there is no space for {} in `{}`: {} are free",
            Bytes(*wanted),
            folder.display(),
            Bytes(*free)
        ),
        other => chain(other),
    }
}

/// What the user can do about `error`.
fn hint(error: &Error) -> String {
    let space = "free disk space (`generate models rm ID` removes a model), or set HF_HOME to a folder on another disk";
    match error {
        Error::Offline { what } => {
            format!("`generate models pull {what}`, without HF_HUB_OFFLINE, downloads it")
        }
        Error::NoRepository { has_token, .. } => {
            let private = match has_token {
                true => "a private one needs a token whose account can read it",
                false => "a private one needs `generate login` first",
            };
            format!("check that the id is that of its page, owner/name; {private}")
        }
        Error::NoRevision { .. } => {
            "check the branch, tag or commit; without one the main branch is used".to_owned()
        }
        Error::NoFile { id, .. } => format!("the page of `{id}` lists its files"),
        Error::Gated { page, has_token, .. } => match has_token {
            true => format!(
                "accept the licence on {page} with the account of your login, then try again"
            ),
            false => format!("accept the licence on {page}, then `generate login`"),
        },
        Error::TokenRefused { endpoint } => {
            format!("`generate login` with a token of {endpoint}/settings/tokens; HF_TOKEN overrides it")
        }
        Error::Forbidden { .. } => "the token must have read access to it; `generate login` stores another".to_owned(),
        Error::NoNetwork { .. } => {
            "check the connection; HTTPS_PROXY and HF_ENDPOINT are obeyed, and downloaded models need no network".to_owned()
        }
        Error::GaveUp { .. } | Error::Busy { .. } => {
            "try again later: the download resumes where it stopped".to_owned()
        }
        Error::BadReply { .. } => {
            "HF_ENDPOINT, if set, must be the Hugging Face hub or a mirror of it".to_owned()
        }
        Error::Mismatch { .. } => {
            "a proxy changed the file, or it was just updated on the hub: try again later".to_owned()
        }
        Error::DiskFull { .. } => space.to_owned(),
        Error::Cache { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => space.to_owned(),
            _ => "check that the folder is writable, or set HF_HOME to another".to_owned(),
        },
        Error::Unread { .. } => "check that the file is readable, and the disk".to_owned(),
        Error::BeingFetched { .. } => "wait for that process, or stop it".to_owned(),
        Error::NoThread { .. } => "close other programs, or raise the limit of processes (ulimit -u)".to_owned(),
        Error::NotCached { .. } => "`generate models list` shows the cached models".to_owned(),
        Error::Stopped => "the same command resumes the download".to_owned(),
        _ => "`generate models list` shows the cached models".to_owned(),
    }
}
